"""Early ends of a run: a target accuracy, no improvement, a time limit."""

import time
from typing import Any

from experiments.config.schema import Config
from fl_sim import Callback, Run

FINAL_REASONS = ("stop.target", "stop.patience")
"""Beginnings of the reasons after which a run is complete; a run that ended for another reason may be resumed."""


class Stopping(Callback):
    """Ends a run by its settings ``stop.target``, ``stop.patience`` and ``time_limit``.

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

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Check the three conditions, after the evaluation of the initial model too."""
        stop, limit = self.config.stop, self.config.time_limit
        accuracy = row.get("accuracy")
        if stop.target and accuracy is not None and accuracy >= stop.target:
            run.stop(f"stop.target = {stop.target}: accuracy {accuracy:.4f} in round {row['round']}")
        elif stop.patience and evaluations_since_best([*run.rows, row]) >= stop.patience:
            run.stop(
                f"stop.patience = {stop.patience}: as many evaluations without an improvement, in round {row['round']}"
            )
        elif limit and time.monotonic() - self.start >= limit:
            run.stop(f"time_limit = {limit:g}: over after round {row['round']}")


def evaluations_since_best(rows: list[dict[str, Any]]) -> int:
    """Number of evaluations after the best one; 0 where the last one is the best, or where the last round has none.

    The best one has the highest accuracy; where no round has an accuracy, the lowest loss.
    """
    key, sign = ("accuracy", 1.0) if any(row.get("accuracy") is not None for row in rows) else ("loss", -1.0)
    values = [sign * row[key] for row in rows if row.get(key) is not None]
    if not values or rows[-1].get(key) is None:
        return 0
    return len(values) - 1 - values.index(max(values))
