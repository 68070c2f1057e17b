"""What ``run_rounds`` needs of a grid beyond Flower's ``Grid``: one interface for virtual clients and real devices."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.engines.results import BlockResult
from fl_sim.errors import RoundFailed
from fl_sim.grids.downwards.sent_models import WholeModels
from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.learning.loss import Loss
from fl_sim.states.client_states import ClientStates
from fl_sim.tree import Tree
from fl_sim.wire import flower
from fl_sim.wire.pool import Pool

OnEvent = Callable[..., None]
"""``(kind, **facts)``: records an event in the log."""
Begin = Callable[[list[Message]], Exchange]
"""``messages -> Exchange``: starts the count of messages that a strategy's hook or an app sends itself."""
End = Callable[[Exchange, list[Message], RoundFailed | None], None]
"""``(exchange, good replies, why it failed or None)``: called when such an exchange has ended."""


class ClientGrid(Grid):
    """A grid whose nodes are an experiment's clients.

    ``run_rounds`` sets ``pool``, ``reply_form``, ``on_event`` and ``on_block``, and reads the rest.
    """

    pool: Pool | None = None
    """The reduction of replies to ``train``, one partial pool a block; None: one reply a client."""
    statistics: Sequence[str] = ()
    """The leaves of the clients' model that are running statistics (BatchNorm's buffers); none where not known."""
    trainable: Sequence[str] = ()
    """The leaves of the clients' model that are trained; none where not known."""
    loss: Loss | None = None
    """The clients' network and task; None where not known."""
    own_pools: bool = False
    """Whether replies were made or checked by this grid, so that a record ``pool`` in one is its own partial pool."""
    nan_passes: bool = False
    """Whether a strategy of Flower's gets replies to an evaluation that hold NaN, as it does on Flower; else no mean
    contains such a reply."""
    asks_after_failure: bool = True
    """Whether a run that fails asks clients to evaluate its final model; real devices may have to be waited for."""
    max_examples: float = 1e9
    """The largest weight of a client: a reply with a larger one is its client's failure."""
    reduced_chunk: int = 0
    """Clients of a block that run at once after memory ran out; 0: memory has not run out."""
    bits_changed: bool = False
    """Whether a client hung or its process died, so that bits depend on more than the config."""
    runs_in_process: int = 1
    """How many runs share this process's time."""
    validation_clients: int = 0
    """Clients with the ids before those of ``holdout_node_ids``, which never train either: choices may read them."""

    def __init__(self) -> None:
        self.states = ClientStates()
        """Each client's state by client id, for a checkpoint."""
        self.reply_form: Callable[[Tree], Tree] = lambda model: model
        """The form of a reply to ``train``, with its payload, as a function of the global model."""
        self._on_event: OnEvent = lambda kind, **facts: None
        self.sent = WholeModels()
        """What messages for training carry of the model."""
        self.on_block: Callable[[BlockResult], None] = lambda result: None
        """Called after each block, where clients run in blocks."""
        self._num_sent = 0
        self._replies: dict[str, Message] = {}

    @property
    def on_event(self) -> OnEvent:
        """Records an event in the log."""
        return self._on_event

    @on_event.setter
    def on_event(self, event: OnEvent) -> None:
        self._on_event = event

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """Nodes of clients that never train, and that no choice reads: unseen ones."""
        return ()

    @property
    def validation_node_ids(self) -> Sequence[int]:
        """Nodes of clients that never train, and by whose evaluation a run may be chosen or ended."""
        return ()

    def client_of(self, node_id: int) -> int:
        """The client id of a node."""
        return node_id

    def for_strategy(self, failures: Failures, begin: Begin, end: End) -> Grid:
        """The grid that is passed to a strategy's hook; default: this one, without counting.

        Parameters
        ----------
        failures : Failures
            How many clients may fail in an exchange that the hook begins itself.
        begin, end : Callable
            Called before and after each such exchange, where the grid counts them.
        """
        return self

    def begin_round(self) -> None:
        """Called before a round asks for clients."""
        return

    def round_columns(self) -> dict[str, object]:
        """What the grid adds to the line of the last round, or of round 0."""
        return {}

    def resumed(self, row: Mapping[str, object]) -> None:
        """Called with the logged line of the round after which a run goes on."""
        return

    def worker_summary(self) -> Mapping[str, object]:
        """Facts about workers for summary.json; empty where there are none."""
        return {}

    def close(self) -> None:
        """Shut workers down, where there are any."""
        return

    # What is the same for all of Flower's grids ---------------------------------------------------------------------

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Exchange messages at once and keep the replies for ``pull_messages``; returns the messages' ids."""
        pushed = list(messages)
        self._replies.update({reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(pushed)})
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each once, in the order in which their messages were sent."""
        return [self._replies.pop(number) for number in sorted(set(message_ids)) if number in self._replies]

    def _number(self, message: Message) -> None:
        """Give a message its id, which Flower leaves to the SuperLink."""
        self._num_sent += 1
        flower.set_message_id(message, f"{self._num_sent:012d}")


class FlowerGrid(ClientGrid):
    """Any other Flower grid behind this interface.

    Its node ids are the client ids, and a strategy's hooks get the wrapped grid itself.
    """

    asks_after_failure = False

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid, self.statistics = grid, tuple(getattr(grid, "statistics", ()))
        self.trainable = tuple(getattr(grid, "trainable", ()))
        self.loss = loss if isinstance(loss := getattr(grid, "loss", None), Loss) else None

    def set_run(self, run: Any) -> None:
        """Set Flower's description of the run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """Flower's description of the run."""
        return self.grid.run

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """The wrapped grid's nodes of clients that never train; empty where it defines none."""
        return tuple(getattr(self.grid, "holdout_node_ids", ()))

    @property
    def validation_node_ids(self) -> Sequence[int]:
        """The wrapped grid's nodes of validation clients; empty where it defines none."""
        return tuple(getattr(self.grid, "validation_node_ids", ()))

    def get_node_ids(self) -> Iterable[int]:
        """The wrapped grid's nodes."""
        return self.grid.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Exchange messages by the wrapped grid."""
        return self.grid.send_and_receive(messages, timeout=timeout)

    def for_strategy(self, failures: Failures, begin: Begin, end: End) -> Grid:
        """The wrapped grid."""
        return self.grid


def as_client_grid(grid: Grid) -> ClientGrid:
    """``grid`` itself where it is a ``ClientGrid``, else a ``FlowerGrid`` around it."""
    return grid if isinstance(grid, ClientGrid) else FlowerGrid(grid)
