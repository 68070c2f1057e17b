"""When a run ends early: a target, no progress, no time. No paper."""

import time
from typing import Any

from experiments.config.schema import Config
from fl_sim import Callback, Run

ASKED = ("stop.target", "stop.patience")
"""How a reason begins that ends a run for good; after others (time_limit, Ctrl-C) it may go on."""


class Stopping(Callback):
    """Ends a run by ``stop.target``, ``stop.patience`` and ``time_limit``; ``seconds`` were spent before this process."""

    reads_digest = False

    def __init__(self, config: Config, seconds: float = 0.0) -> None:
        self.config, self.start = config, time.monotonic() - seconds

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """After each round, the initial model's evaluation included."""
        stop, limit = self.config.stop, self.config.time_limit
        accuracy = row.get("accuracy")
        if stop.target and accuracy is not None and accuracy >= stop.target:
            run.stop(f"stop.target = {stop.target}: accuracy {accuracy:.4f} in round {row['round']}")
        elif stop.patience and waited([*run.rows, row]) >= stop.patience:
            run.stop(
                f"stop.patience = {stop.patience}: so many evaluations without a better one, in round {row['round']}"
            )
        elif limit and time.monotonic() - self.start >= limit:
            run.stop(f"time_limit = {limit:g}: over after round {row['round']}")


def waited(rows: list[dict[str, Any]]) -> int:
    """Evaluations since the best one: of accuracy, or of loss where there is none; 0 where the last one is the best."""
    key, sign = ("accuracy", 1.0) if any(row.get("accuracy") is not None for row in rows) else ("loss", -1.0)
    seen = [sign * row[key] for row in rows if row.get(key) is not None]
    if not seen or rows[-1].get(key) is None:
        return 0
    return len(seen) - 1 - seen.index(max(seen))
