"""A callback that passes the numbers of each round on to a tracker, whose failures are events and never the run's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fl_sim import Callback, Run
from fl_sim.dotted import flatten
from fl_sim.logs.columns import CONFIG
from fl_sim.logs.toml import read_toml


class Sink(Protocol):
    """A tracker that has begun a run."""

    def numbers(self, server_round: int, values: Mapping[str, float]) -> None:
        """The numbers of one round, by column of ``rounds.jsonl``; perhaps some of a round again, with others."""

    def close(self) -> None:
        """The run has ended."""


Start = Callable[[Path, Mapping[str, object]], Sink]
"""``(the run's folder, its settings by dotted key) -> Sink``."""


class Tracked(Callback):
    """Passes on the numbers of each round.

    Parameters
    ----------
    name : str
        The tracker's.
    start : Callable
        Begins a run there.
    """

    reads_digest = False

    def __init__(self, name: str, start: Start) -> None:
        self.name, self.start = name, start
        self.sink: Sink | None = None
        self.last = -1

    def on_run_start(self, run: Run) -> None:
        """Begin a run there; of a run without a log there is nothing to begin."""
        self.sink, self.last = None, -1
        if run.log is not None:
            folder = run.log.path
            self._safely(run, lambda: self._begin(folder))

    def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
        """Pass on what was evaluated after the round's other numbers had been passed on."""
        if row["round"] == self.last:
            self.on_round_end(run, row)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Pass on the round's numbers."""
        if (sink := self.sink) is not None:
            self.last, found = int(row["round"]), numbers_of(row)
            self._safely(run, lambda: sink.numbers(self.last, found))

    def on_run_end(self, run: Run) -> None:
        """Close the tracker's run."""
        if (sink := self.sink) is not None:
            self._safely(run, sink.close)
            self.sink = None

    def _begin(self, folder: Path) -> None:
        self.sink = self.start(folder, flatten(read_toml(folder / CONFIG)))

    def _safely(self, run: Run, call: Callable[[], None]) -> None:
        """Call a tracker; where it fails, say so in the log, and leave it alone from then on."""
        try:
            call()
        except (Exception, SystemExit) as error:
            self.sink = None
            if run.log is not None:
                reason = f"{type(error).__name__}: {error}"[:1000]
                run.log.event("tracker_failed", round=run.round, tracker=self.name, reason=reason)


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a round's line, but for the round's own."""
    kinds = (int, float)
    plain = {k: v for k, v in row.items() if isinstance(v, kinds) and not isinstance(v, bool) and k != "round"}
    return {k: float(v) for k, v in plain.items() if v == v and abs(v) != float("inf")}
