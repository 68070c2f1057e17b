"""Replies pulled from a Flower grid one by one, so that a bad one harms no other.

Flower raises for a reply that it cannot rebuild, after it has taken all others of the same call off the SuperLink. And
it waits, for hours, for the rest of a reply whose sender stopped in the middle of sending it.
"""

import threading
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed

PATIENCE_S = 2.0
"""How long a reply may take to be pulled before others are pulled beside it."""
CONNECTION = ("httpx", "httpcore", "grpc")
"""Packages whose exceptions tell of the connection to the SuperLink, and not of a reply."""


class PulledReplies:
    """The replies to messages of one grid.

    Parameters
    ----------
    grid : Grid
        Its ``pull_messages`` is called in other threads, with one message's id at a time.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._running: dict[str, _Pull] = {}

    def __call__(self, numbers: Iterable[str]) -> Iterator[tuple[str, Message | None, str]]:
        """(id of a message, the reply to it or None, why the reply cannot be read or "") of those that have come.

        Raises what a broken connection raises.
        """
        for number in list(numbers):
            known = self._running.get(number)
            pull = known or _Pull(self.grid, number)
            if known is None:
                pull.begin()
            if pull.is_alive():
                self._running[number] = pull
                continue
            self._running.pop(number, None)
            if pull.error is not None:
                yield number, None, _reason(pull.error)
            elif pull.replies:
                reply = pull.replies[0]
                same = reply.metadata.reply_to_message_id == number
                yield (number, reply, "") if same else (number, None, "a reply that says it answers another message")

    def forget(self, numbers: Iterable[str]) -> None:
        """Wait for no reply to these messages any more."""
        for number in numbers:
            self._running.pop(number, None)

    def running(self) -> bool:
        """Whether the rest of a reply is being waited for."""
        return bool(self._running)


class _Pull(threading.Thread):
    """One call of ``pull_messages``; a daemon, since it may wait for hours."""

    def __init__(self, grid: Grid, number: str) -> None:
        super().__init__(daemon=True)
        self.grid, self.number = grid, number
        self.replies: list[Message] = []
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Start, and wait for ``PATIENCE_S``; where the system has no thread to give, pull in this one."""
        try:
            self.start()
        except RuntimeError:
            self.run()
        else:
            self.join(PATIENCE_S)

    def run(self) -> None:
        try:
            self.replies = list(self.grid.pull_messages([self.number]))
        except BaseException as error:
            self.error = error


def _reason(error: BaseException) -> str:
    """Why a reply cannot be read. Raises ``error`` where it tells of the connection, or of this project's own code."""
    connection = isinstance(error, (OSError, RoundFailed)) or not isinstance(error, Exception)
    if connection or type(error).__module__.partition(".")[0] in CONNECTION:
        raise error
    return f"a reply that Flower cannot read: {type(error).__name__}: {error}"[:1000]
