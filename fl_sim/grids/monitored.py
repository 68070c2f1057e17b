"""A grid whose exchanges are tallied: what an app or a strategy says to clients by itself is seen too, and failures count. No paper."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed
from fl_sim.grids.exchange import Failures, Tally
from fl_sim.grids.messages import CLIENT_ERROR
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.wire import flower, reply_form

POLLS, WAIT_S = 4, 3.0
"""So many looks at the nodes, over so many seconds with hardly any work, are waiting for more nodes."""

Begin = Callable[[list[Message]], Tally]
End = Callable[[Tally, list[Message], RoundFailed | None], None]


class WatchedGrid(Grid):
    """A SimulationGrid as it is handed to foreign code, which talks to clients at any time.

    Parameters
    ----------
    grid : SimulationGrid
        Where messages go.
    failures : Failures
        How many clients of an exchange may fail. Their replies are left out by ``send_and_receive``; ``pull_messages``
        gives an error in their place, because whoever pulls waits for every reply.
    begin : Callable
        ``messages -> Tally``.
    end : Callable
        ``(tally, the good replies, why the exchange failed or None)``.
    """

    def __init__(self, grid: SimulationGrid, failures: Failures, begin: Begin, end: End) -> None:
        self.grid, self.failures, self.begin, self.end = grid, failures, begin, end
        self._polls: list[tuple[float, float]] = []
        self._mailbox: dict[str, Message] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.grid, name)

    def set_run(self, run: Any) -> None:
        """Take over a Run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run of this grid."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that may train. Raises RoundFailed where the caller waits for more than there are, which would be for ever."""
        self._polls.append((time.monotonic(), time.process_time()))
        waited, worked = (now - first for now, first in zip(self._polls[-1], self._polls[0], strict=True))
        nodes = self.grid.get_node_ids()
        if len(self._polls) >= POLLS and waited > WAIT_S and worked < waited / 5:
            hint = "more clients (--clients N), or a strategy that needs fewer (min_available_nodes, min_train_nodes, cohort)"
            raise RoundFailed(
                f"waiting for more nodes than the {len(nodes)} there are: they never come in a simulation; give {hint}"
            )
        return nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The good replies. Raises RoundFailed when more clients fail than may."""
        sent = list(messages)
        return self._exchange(sent, timeout)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Answer messages at once and keep the replies for ``pull_messages``. Raises RoundFailed when more clients fail than may."""
        sent = list(messages)
        good = {reply.metadata.reply_to_message_id: reply for reply in self._exchange(sent, None)}
        for message in sent:
            number = message.metadata.message_id
            if number not in good:
                good[number] = Message(Error(CLIENT_ERROR, "the client failed: see the log"), reply_to=message)
            self._mailbox[number] = good[number]
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each handed out once."""
        return [self._mailbox.pop(number) for number in message_ids if number in self._mailbox]

    def _exchange(self, sent: list[Message], timeout: float | None) -> list[Message]:
        self._polls.clear()
        tally, good = self.begin(sent), []
        replies = tally.gather(self.grid.send_and_receive(sent, timeout=timeout), self.failures)
        likes = (
            reply_form.expected(sent, replies, {}, averages=False) if tally.phase == "train" else reply_form.anything
        )
        try:
            for reply in tally.watch(replies, likes, self.failures):
                good.append(reply)
        except RoundFailed as error:
            self.end(tally, good, error)
            raise
        self.end(tally, good, None)
        return good


def phase_of(messages: Iterable[Message]) -> str:
    """``train``, ``evaluate`` or ``query``: of the first message, without its action."""
    return next((message.metadata.message_type.partition(".")[0] for message in messages), "")


def clients_of(grid: Grid, messages: Iterable[Message]) -> dict[int, int]:
    """Node id -> client id, of the messages' nodes; a real device is called by its node id."""
    offset = flower.FIRST_NODE if isinstance(grid, SimulationGrid) else 0
    return {message.metadata.dst_node_id: message.metadata.dst_node_id - offset for message in messages}
