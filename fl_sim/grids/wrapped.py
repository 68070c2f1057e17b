"""An app's own grid, wrapped around the monitored one: the driver's messages go through it, and are counted once."""

from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from fl_sim.grids.base import Begin, ClientGrid, End, FlowerGrid, OnEvent
from fl_sim.grids.exchange import Failures
from fl_sim.grids.monitored import MonitoredGrid


class WrappedGrid(FlowerGrid):
    """A grid of the app's own, whose messages end in ``monitored``.

    Parameters
    ----------
    grid : Grid
        The app's own.
    monitored : MonitoredGrid
        The grid that was handed to the app.
    inner : ClientGrid
        The grid inside ``monitored``, which knows the clients.
    """

    def __init__(self, grid: Grid, monitored: MonitoredGrid, inner: ClientGrid) -> None:
        super().__init__(grid)
        self.monitored, self.inner = monitored, inner
        self.max_examples, self.nan_passes = inner.max_examples, inner.nan_passes

    @property
    def on_event(self) -> OnEvent:
        """Records an event in the log."""
        return self.inner.on_event

    @on_event.setter
    def on_event(self, event: OnEvent) -> None:
        self.inner.on_event = event

    def client_of(self, node_id: int) -> int:
        """The client id of a node."""
        return self.inner.client_of(node_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Exchange messages by the app's grid; the caller counts them."""
        with self.monitored.uncounted():
            return list(self.grid.send_and_receive(messages, timeout=timeout))

    def for_strategy(self, failures: Failures, begin: Begin, end: End) -> Grid:
        """The app's grid; exchanges that a strategy's hook begins are counted by ``begin`` and ``end``."""
        self.monitored.begin, self.monitored.end = begin, end
        return self.grid
