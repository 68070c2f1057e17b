"""A grid that counts exchanges: those that a strategy's hook or an app begins itself.

Their clients are logged, and the failure policy applies to them.
"""

import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed
from fl_sim.grids import no_answer
from fl_sim.grids.base import Begin, ClientGrid, End
from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.grids.messages import CLIENT_ERROR
from fl_sim.grids.node_polls import NodePolls
from fl_sim.wire import reply_form

MOST_LISTED = 100_000
"""The most nodes that are copied into a list, which takes 1 ms."""


class MonitoredGrid(Grid):
    """A grid as it is handed to code that may exchange messages at any time, from any thread.

    Exchanges follow one another, whoever begins them: an exchange that a second thread begins waits for the first.

    Parameters
    ----------
    grid : ClientGrid
        Where messages go. Its set of nodes must not grow.
    failures : Failures
        How many clients of an exchange may fail. An app gets an error reply for each of these, as Flower gives it;
        a strategy's hook does from ``pull_messages``, whose caller waits for every reply.
    begin : Callable
        ``messages -> Exchange``, before an exchange.
    end : Callable
        ``(exchange, good replies, why the exchange failed or None)``, after an exchange.
    """

    def __init__(self, grid: ClientGrid, failures: Failures, begin: Begin, end: End) -> None:
        self.grid, self.failures, self.begin, self.end = grid, failures, begin, end
        self.lock = threading.RLock()
        """Held during an exchange."""
        self.closed = ""
        """Why no message can be sent any more; "" while they can."""
        self._polls = NodePolls()
        self._counting = True
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
        """Nodes that may train: a new list, as Flower gives it, but for more than ``MOST_LISTED`` nodes.

        Raises RoundFailed where the caller waits for more nodes than exist, which would never end.
        """
        nodes = self.grid.get_node_ids()
        if self._polls.never_end():
            few = f"waiting for more nodes than the {len(list(nodes))} there are: they never come in a simulation"
            needs = "a strategy that needs fewer (min_available_nodes, min_train_nodes, cohort)"
            raise RoundFailed(f"{few}; give more clients (--clients N), or {needs}")
        return list(nodes) if not isinstance(nodes, Sized) or len(nodes) <= MOST_LISTED else nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies in the order of the messages; none for a message that nobody answers (``no_answer``).

        Raises RoundFailed when more clients fail than may.
        """
        return self._exchange(list(messages), timeout)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Exchange messages at once and keep the replies for ``pull_messages``.

        Raises RoundFailed when more clients fail than may.
        """
        sent = list(messages)
        with self.lock:
            replies = self._exchange(sent, None, pushed=True)
            self._replies.update({reply.metadata.reply_to_message_id: reply for reply in replies})
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each once, in the order in which their messages were sent."""
        with self.lock:
            return [self._replies.pop(number) for number in sorted(set(message_ids)) if number in self._replies]

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """While open, messages pass through and are counted by whoever sends them."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def _exchange(self, sent: list[Message], timeout: float | None, pushed: bool = False) -> list[Message]:
        with self.lock:
            self._polls.clear()
            if self.closed:
                raise RoundFailed(self.closed)
            if not self._counting:
                return list(self.grid.send_and_receive(sent, timeout=timeout))
            exchange = self.begin(sent)
            replies = exchange.gather(self.grid.send_and_receive(sent, timeout=timeout), self.failures)
            training = exchange.phase == "train" and not exchange.app_owned
            likes = reply_form.expected(sent, replies, {}, averages=False) if training else reply_form.anything
            good: list[Message] = []
            try:
                for reply in exchange.checked(replies, likes, self.failures):
                    good.append(reply)
            except RoundFailed as error:
                self.end(exchange, good, error)
                raise
            self.end(exchange, good, None)
            return _answers(exchange, replies, good) if exchange.app_owned or pushed else good


def _answers(exchange: Exchange, replies: Iterable[Message], good: Iterable[Message]) -> list[Message]:
    """What the sender of an exchange's messages gets, in their order: error replies in place of failures."""
    passed = {reply.metadata.reply_to_message_id: reply for reply in good}
    failed = {reply.metadata.reply_to_message_id: reply for reply in replies}
    answers = []
    for message in exchange.messages:
        number = message.metadata.message_id
        reply = failed.get(number)
        none = no_answer.code_of(reply) if reply is not None else 0
        if none in (no_answer.LATE, no_answer.NO_NODE):
            continue
        if number in passed:
            reply = passed[number]
        elif reply is None or not reply.has_error() or none == no_answer.NO_FUNCTION:
            reason = (
                reply.error.reason
                if reply is not None and reply.has_error()
                else "the reply cannot be used: see the log"
            )
            reply = Message(Error(CLIENT_ERROR, reason), reply_to=message)
        answers.append(reply)
    return answers


def phase_of(messages: Iterable[Message]) -> str:
    """``train``, ``evaluate`` or ``query``: of the first message, without its action."""
    return next((message.metadata.message_type.partition(".")[0] for message in messages), "")


def clients_of(grid: ClientGrid, messages: Iterable[Message]) -> dict[int, int]:
    """Node id -> client id, of the messages' nodes."""
    nodes = (message.metadata.dst_node_id for message in messages)
    return {node: grid.client_of(node) for node in nodes}
