"""A grid that counts exchanges: those that a strategy's hook or an app begins itself.

Their clients are logged, and the failure policy applies to them.
"""

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed
from fl_sim.grids.base import Begin, ClientGrid, End
from fl_sim.grids.exchange import Failures
from fl_sim.grids.messages import CLIENT_ERROR
from fl_sim.wire import reply_form

POLLS, WAIT_S = 4, 3.0
"""A caller that polls the nodes ``POLLS`` times in ``WAIT_S`` seconds, and hardly computes, waits for more nodes."""


class MonitoredGrid(Grid):
    """A grid as it is handed to code that may exchange messages at any time.

    Parameters
    ----------
    grid : ClientGrid
        Where messages go. Its set of nodes must not grow.
    failures : Failures
        How many clients of an exchange may fail. Their replies are left out by ``send_and_receive``; ``pull_messages``
        gives an error reply in their place, because its caller waits for every reply.
    begin : Callable
        ``messages -> Exchange``, before an exchange.
    end : Callable
        ``(exchange, good replies, why the exchange failed or None)``, after an exchange.
    """

    def __init__(self, grid: ClientGrid, failures: Failures, begin: Begin, end: End) -> None:
        self.grid, self.failures, self.begin, self.end = grid, failures, begin, end
        self._polls: list[tuple[float, float]] = []
        self._replies: dict[str, Message] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.grid, name)

    def set_run(self, run: Any) -> None:
        """Set Flower's description of the run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """Flower's description of the run."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that may train.

        Raises RoundFailed where the caller waits for more nodes than exist, which would never end.
        """
        self._polls.append((time.monotonic(), time.process_time()))
        waited, worked = (now - first for now, first in zip(self._polls[-1], self._polls[0], strict=True))
        nodes = self.grid.get_node_ids()
        if len(self._polls) >= POLLS and waited > WAIT_S and worked < waited / 5:
            few = f"waiting for more nodes than the {len(list(nodes))} there are: they never come in a simulation"
            needs = "a strategy that needs fewer (min_available_nodes, min_train_nodes, cohort)"
            raise RoundFailed(f"{few}; give more clients (--clients N), or {needs}")
        return nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The good replies. Raises RoundFailed when more clients fail than may."""
        return self._exchange(list(messages), timeout)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Exchange messages at once and keep the replies for ``pull_messages``.

        Raises RoundFailed when more clients fail than may.
        """
        sent = list(messages)
        good = {reply.metadata.reply_to_message_id: reply for reply in self._exchange(sent, None)}
        for message in sent:
            number = message.metadata.message_id
            if number not in good:
                good[number] = Message(Error(CLIENT_ERROR, "the client failed: see the log"), reply_to=message)
            self._replies[number] = good[number]
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each once."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def _exchange(self, sent: list[Message], timeout: float | None) -> list[Message]:
        self._polls.clear()
        exchange, good = self.begin(sent), []
        replies = exchange.gather(self.grid.send_and_receive(sent, timeout=timeout), self.failures)
        training = exchange.phase == "train"
        likes = reply_form.expected(sent, replies, {}, averages=False) if training else reply_form.anything
        try:
            for reply in exchange.checked(replies, likes, self.failures):
                good.append(reply)
        except RoundFailed as error:
            self.end(exchange, good, error)
            raise
        self.end(exchange, good, None)
        return good


def phase_of(messages: Iterable[Message]) -> str:
    """``train``, ``evaluate`` or ``query``: of the first message, without its action."""
    return next((message.metadata.message_type.partition(".")[0] for message in messages), "")


def clients_of(grid: ClientGrid, messages: Iterable[Message]) -> dict[int, int]:
    """Node id -> client id, of the messages' nodes."""
    nodes = (message.metadata.dst_node_id for message in messages)
    return {node: grid.client_of(node) for node in nodes}
