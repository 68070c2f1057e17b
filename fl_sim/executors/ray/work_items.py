"""Units of work for Ray's workers, and what the dispatcher needs of a set of workers.

Legend: W workers that are ready.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class WorkerLost(Exception):
    """A worker has died, and the items that it held are lost. The message is the reason."""


@dataclass
class WorkItem:
    """A unit of work that one worker computes."""

    send: Callable[[Any], object]
    """Sends the item to a worker, in the form in which ``Workers`` keeps it, and returns a future.

    May be called again.
    """
    cost: float
    """Proportional to the expected time, in any unit (steps, samples)."""
    name: str
    """For error messages: which block, of which clients."""
    block: int | None = None
    """Number of the block; None in an evaluation."""
    attempts: int = 0
    """How many workers have died while they computed it."""
    exclusive: bool = False
    """A worker that held the item has died: no other item is queued with it, so that another death has one cause."""
    limit_s: float = math.inf
    """Seconds after which its worker is ended."""
    split: Callable[[], Sequence["WorkItem"]] | None = None
    """Makes the items that take its place where it takes too long; its result is then the list of theirs.

    None: its result is then TIMED_OUT.
    """


TIMED_OUT = object()
"""The result of an item that took too long and cannot be split."""


class Workers(Protocol):
    """A set of workers, each with a number."""

    def ready(self) -> Sequence[int]:
        """Numbers (W,) of the workers that accept items."""

    def send(self, worker: int, item: WorkItem) -> object:
        """Send an item and return its future. A worker computes its items in the order in which they were sent."""

    def wait(self, futures: Sequence[object], block: bool, limit_s: float = math.inf) -> Sequence[object]:
        """The futures that are done.

        With ``block``, return only when one is done, the set of ready workers has changed, or ``limit_s`` seconds are
        over. Raises RoundFailed where
        no worker can be started.
        """

    def result(self, future: object) -> tuple[object, float]:
        """(value, seconds that the worker took) of a future that is done. Raises WorkerLost."""

    def replace(self, worker: int) -> dict[str, object]:
        """Forget a lost worker and start another one where possible. Returns facts about the lost one for the log."""

    def cancel(self, future: object) -> None:
        """Give up a result that is no longer needed."""

    def clock(self) -> float:
        """Seconds since an arbitrary start."""
