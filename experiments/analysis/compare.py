"""A table that compares runs: one row for each strategy and differing setting, with means over seeds."""

import warnings
from collections.abc import Iterable, Sequence

import pandas as pd

from experiments.analysis.frames import MEGABYTE, Run, groups, has_ended, read, to_target
from fl_sim.logs.reader import RunLog


def _last(log: RunLog, column: str) -> float:
    """The last value of a column that is not null, of a run that has ended only of its final model; NaN without one."""
    rounds = log.rounds
    if log.summary and len(rounds):
        digest = rounds["digest"].iloc[-1]
        rounds = rounds.tail(1) if pd.isna(digest) else rounds[rounds["digest"] == digest]
    values = rounds[column].dropna()
    return float(values.iloc[-1]) if len(values) else float("nan")


def outcome(log: RunLog, target: float | None = None) -> dict[str, object]:
    """The results of one run so far, by the names of the columns of ``compare``.

    Parameters
    ----------
    log : RunLog
        The run's log.
    target : float, optional
        Accuracy whose rounds are counted, a fraction; default: the run's own target.

    Of a fork, rounds are counted from the start of its original, and seconds and bytes from its own.
    """
    seconds = log.rounds[["seconds", "evaluate_seconds"]].sum().sum()
    sums = log.rounds[["bytes_up", "bytes_down"]].sum(min_count=1)
    if target is None and log.summary:
        rounds = log.summary.get("rounds_to_target")
    else:
        own = log.config.get("target") if target is None else target
        rounds = None if own is None or log.rounds["accuracy"].isna().all() else to_target(log, own).rounds
    return {
        "accuracy": _last(log, "accuracy"),
        "val_accuracy": _last(log, "val_accuracy"),
        "personal_accuracy": _last(log, "personal_accuracy"),
        "loss": _last(log, "loss"),
        "rounds_to_target": float("nan") if rounds is None else float(rounds),
        "seconds": float(log.summary.get("seconds") or seconds),
        "mb_up": sums["bytes_up"] / MEGABYTE,
        "mb_down": sums["bytes_down"] / MEGABYTE,
    }


def compare(runs: Iterable[Run], target: float | None = None) -> pd.DataFrame:
    """One row for each strategy and each value of any other setting that differs.

    Warns where a row's means are over runs that did not get equally far, or that do not all have the number.

    Parameters
    ----------
    runs : iterable of RunLog, str or Path
        Logs, run folders, or folders of run folders.
    target : float, optional
        Accuracy whose rounds are counted, a fraction; default: each run's own target.

    Returns
    -------
    DataFrame
        Columns: ``strategy``; the differing settings by dotted name; ``status``; ``seeds``, their number; for each
        number of ``outcome`` its mean, and as ``..._std`` its standard deviation, over seeds; ``reached``, the number
        of seeds that reached the target, over which the mean of ``rounds_to_target`` is taken; ``digest``, null where
        there are several seeds.
    """
    names, grouped = groups(read(*runs))
    rows = []
    for values, logs in grouped.items():
        states = {str(log.summary.get("status", "running")) for log in logs}
        numbers = pd.DataFrame([outcome(log, target) for log in logs])
        where = ", ".join(f"{k} = {v}" for k, v in zip(names, values, strict=True))
        _warn_of_unequal_rounds(where, logs)
        _warn_of_missing(where, logs, numbers.drop(columns="rounds_to_target"))
        row = {**dict(zip(names, values, strict=True)), "status": ", ".join(sorted(states)), "seeds": len(logs)}
        for name in numbers:
            row |= {str(name): numbers[name].mean(), f"{name}_std": numbers[name].std()}
        digest = logs[0].rounds["digest"].dropna()
        row["reached"] = int(numbers["rounds_to_target"].notna().sum())
        row["digest"] = str(digest.iloc[-1]) if len(logs) == 1 and len(digest) else None
        rows.append(row)
    return pd.DataFrame(rows)


def _warn_of_unequal_rounds(where: str, logs: Sequence[RunLog]) -> None:
    """Warn where a mean over seeds mixes a run that goes on or broke off with runs of more rounds."""
    done = [int(log.rounds["round"].max()) if len(log.rounds) else 0 for log in logs]
    short = [
        f"{log.path.name} ({_state(log)}, round {count})"
        for log, count in zip(logs, done, strict=True)
        if count < max(done) and not has_ended(log)
    ]
    if short:
        what = f"the means of {where} contain runs that have not reached round {max(done)} of the others"
        warnings.warn(f"{what}: {', '.join(short)}; leave them out, or resume them", stacklevel=3)


def _warn_of_missing(where: str, logs: Sequence[RunLog], numbers: pd.DataFrame) -> None:
    """Warn where some runs have no value of a number, which is then a mean over the others."""
    found = numbers.notna()
    part = [str(name) for name in numbers if 0 < found[name].sum() < len(logs)]
    if part:
        without = [log.path.name for log, full in zip(logs, found[part].all(axis=1), strict=True) if not full]
        what = f"the means of {where} are over {len(logs)} runs, but those of {', '.join(part)} are not"
        warnings.warn(f"{what}: {', '.join(without)} have no such number of the final model", stacklevel=3)


def _state(log: RunLog) -> str:
    """How a run ended, for a warning."""
    return str(log.summary.get("stopped") or log.summary.get("status", "running or killed"))
