"""A comparison of runs: one row a strategy and differing setting, seeds pooled."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from experiments.analysis.frames import MEGABYTE, Run, groups, read, to_target
from fl_sim.logs.reader import RunLog


def _last(log: RunLog, column: str) -> float:
    """The last value that is not null; NaN without one."""
    values = log.rounds[column].dropna()
    return float(values.iloc[-1]) if len(values) else float("nan")


def outcome(log: RunLog, target: float | None = None) -> dict[str, Any]:
    """What a run came to, as far as it is: the columns of ``compare`` for one run."""
    sums = log.rounds[["seconds", "evaluate_seconds", "bytes_up", "bytes_down"]].sum()
    to = log.summary.get("rounds_to_target") if target is None else to_target(log, target).rounds
    return {
        "accuracy": _last(log, "accuracy"),
        "personal_accuracy": _last(log, "personal_accuracy"),
        "loss": _last(log, "loss"),
        "rounds_to_target": float("nan") if to is None else float(to),
        "seconds": float(log.summary.get("seconds") or sums["seconds"] + sums["evaluate_seconds"]),
        "mb_up": sums["bytes_up"] / MEGABYTE,
        "mb_down": sums["bytes_down"] / MEGABYTE,
    }


def compare(runs: Iterable[Run], target: float | None = None) -> pd.DataFrame:
    """One row a strategy (and per value of any other setting that differs), seeds pooled.

    Columns: ``strategy``, the differing settings by dotted name, ``status``, ``seeds`` (how many), then per number of
    ``outcome`` its mean and ``..._std`` over seeds, ``reached`` (seeds that reached the target; the mean of
    ``rounds_to_target`` is over these), ``digest`` (with one seed). Without ``target``, the runs' own target counts.
    """
    names, grouped = groups(read(*runs))
    rows = []
    for values, logs in grouped.items():
        states = {str(log.summary.get("status", "running")) for log in logs}
        numbers = pd.DataFrame([outcome(log, target) for log in logs])
        row = {**dict(zip(names, values, strict=True)), "status": ", ".join(sorted(states)), "seeds": len(logs)}
        for name in numbers:
            row |= {str(name): numbers[name].mean(), f"{name}_std": numbers[name].std()}
        digest = logs[0].rounds["digest"].dropna()
        row["reached"] = int(numbers["rounds_to_target"].notna().sum())
        row["digest"] = str(digest.iloc[-1]) if len(logs) == 1 and len(digest) else None
        rows.append(row)
    return pd.DataFrame(rows)
