"""Early ends of a run: a target accuracy, no improvement, a limit of wall time or of virtual time."""

import time
from typing import Any

from experiments.config.schema import Config
from fl_sim import Callback, Run

FINAL_REASONS = ("stop.target", "stop.patience", "stop.virtual_time")
"""Beginnings of the reasons after which a run is complete; a run that ended for another reason may be resumed."""


class Stopping(Callback):
    """Ends a run by its settings ``stop.target``, ``stop.patience``, ``stop.virtual_time`` and ``time_limit``.

    The first two read the evaluation that ``stop.on`` names, of validation clients after fine-tuning or of the central
    validation share: nothing else of a run is chosen by an evaluation, and by the test set only where
    ``stop.on = test`` says so. Unseen clients are never read.

    Parameters
    ----------
    config : Config
        The run's config.
    seconds : float
        Time that the run took before this process, in seconds: it counts toward ``time_limit`` of a resumed run.
    """

    reads_digest = False

    def __init__(self, config: Config, seconds: float = 0.0) -> None:
        self.config, self.start = config, time.monotonic() - seconds

    def on_run_start(self, run: Run) -> None:
        """End a resumed run at once whose last round had met a condition: it was interrupted while it ended."""
        if run.rows:
            self._end_by_evaluation(run, run.rows)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Check all conditions, after the evaluation of the initial model too."""
        limit = self.config.time_limit
        if self.config.stop.rule:
            self._end_by_evaluation(run, [*run.rows, row])
        virtual, now = self.config.stop.virtual_time, row.get("virtual_time")
        if not run.stopped and virtual and isinstance(now, (int, float)) and now >= virtual:
            run.stop(f"stop.virtual_time = {virtual:g}: over after round {row['round']}, at {now:g}")
        if not run.stopped and limit and time.monotonic() - self.start >= limit:
            run.stop(f"time_limit = {limit:g}: over after round {row['round']}")

    def _end_by_evaluation(self, run: Run, rows: list[dict[str, Any]]) -> None:
        stop, last = self.config.stop, rows[-1]
        prefix = "" if stop.on == "test" else "val_unseen_" if self.config.validation_clients else "val_"
        accuracy = last.get(f"{prefix}accuracy")
        if stop.target and accuracy is not None and accuracy >= stop.target:
            run.stop(f"stop.target = {stop.target}: {prefix}accuracy {accuracy:.4f} in round {last['round']}")
        elif stop.patience and evaluations_since_best(rows, prefix) >= stop.patience:
            whose = "clients" if prefix == "val_unseen_" else "samples"
            what = f"as many evaluations of the {stop.on} {whose} without an improvement"
            run.stop(f"stop.patience = {stop.patience}: {what}, in round {last['round']}")


def evaluations_since_best(rows: list[dict[str, Any]], prefix: str = "") -> int:
    """Number of evaluations after the best one; 0 where the last one is the best, or where the last round has none.

    The best one has the highest accuracy; where no round has an accuracy, the lowest loss. ``prefix`` : of the columns'
    names: ``val_`` for the validation share, ``val_unseen_`` for validation clients.
    """
    key, sign = f"{prefix}accuracy", 1.0
    if all(row.get(key) is None for row in rows):
        key, sign = f"{prefix}loss", -1.0
    values = [sign * row[key] for row in rows if row.get(key) is not None]
    if not values or rows[-1].get(key) is None:
        return 0
    return len(values) - 1 - values.index(max(values))
