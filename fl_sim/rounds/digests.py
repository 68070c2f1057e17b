"""The digest of a run's model, computed where a line gets one, beside the round that follows.

Hashing a large model does not hold Python's lock, so that another thread does it at no cost. To hand a small one over
takes longer than to hash it, so that it is hashed at once.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from flwr.app import ArrayRecord

from fl_sim.logs.writer import RoundLog
from fl_sim.rounds.callbacks import Run
from fl_sim.tree import Tree
from fl_sim.wire import records

P = ParamSpec("P")
R = TypeVar("R")
SMALL_BYTES = 2**18
"""A model up to this size takes at most half a millisecond to hash."""


class Digests:
    """The digest of ``run.model``, and the lines of the log that wait for it.

    Parameters
    ----------
    run : Run
        The run under way.
    every : int
        Rounds between digests. Lines of rounds that were evaluated, and of the last one, have digests too.
    """

    def __init__(self, run: Run, every: int) -> None:
        self.run, self.every = run, every
        self.small = False
        """Whether calls run at once, in the caller's thread."""
        self.current: Future[str] | None = None
        """The digest of ``run.model``; None until a line gets it."""
        self._before: tuple[ArrayRecord, Tree] | None = None
        """The model that ``run.model`` replaced, while the last row is of it and has no digest."""
        self.line: Future[None] = Future()
        """Done when the last round's line has been written."""
        self.line.set_result(None)
        self._thread = ThreadPoolExecutor(1)

    def begin(self) -> None:
        """The run begins with ``run.model``, which has the size of all later ones."""
        self.small = records.num_bytes(self.run.arrays) <= SMALL_BYTES

    def due(self) -> bool:
        """Whether this round's line gets a digest in any case."""
        return self.run.round % self.every == 0 or self.run.round == self.run.num_rounds

    def of_next(self, arrays: ArrayRecord, model: Tree) -> Future[str] | None:
        """The digest of the model that this round ends with, where its line gets one in any case."""
        self._before = (self.run.arrays, self.run.model) if self.current is None else None
        return self.submit(records.digest, arrays, model) if self.due() else None

    def wanted(self) -> Future[str]:
        """The digest of ``run.model``, which is computed from now on if it was not before."""
        if self.current is None:
            self.current = self.submit(records.digest, self.run.arrays, self.run.model)
        return self.current

    def last(self, model_round: int, intact: bool) -> str:
        """The digest of ``run.model`` at the end of a run, also of one that was broken off; "" if it is not known.

        The last row gets its own in memory, where it has none: that of ``run.model``, or of the one before, where the
        run broke off after round ``model_round`` had a new one. ``intact``: whether no callback wrote into the model.
        """
        row: dict[str, Any] = self.run.rows[-1] if self.run.rows else {"round": -1}
        newer = row["round"] < model_round
        of_row = self._before if newer else (self.run.arrays, self.run.model) if intact else None
        if row.get("digest") is None and of_row is not None:
            row["digest"] = records.digest(*of_row)
            if not newer:
                return str(row["digest"])
        return self.current.result() if intact and self.current is not None and self.current.done() else ""

    def write(self, row: dict[str, object], digest: Future[str] | None, log: RoundLog | None) -> None:
        """Complete a round's row with its digest, if it gets one, and write the line into the log, if there is one."""

        def write() -> None:
            row["digest"] = None if digest is None else digest.result()
            if log is not None:
                log.round(row)

        self._before = None
        self.line = self.submit(write)

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run calls one after another, in their order; the result of one, or its exception, in a Future."""
        if not self.small:
            return self._thread.submit(call, *args, **kwargs)
        done: Future[R] = Future()
        try:
            done.set_result(call(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self) -> None:
        """Wait for all calls, and end the thread."""
        self._thread.shutdown()
