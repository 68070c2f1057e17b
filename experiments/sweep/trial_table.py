"""What a sweep's trials reached: one row a trial, and the one that the validation samples choose."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.config.schema import Config
from experiments.runs.summary import of_final_model
from experiments.sweep.axis_values import Point
from experiments.sweep.search import Result, falls, worth
from experiments.sweep.trial_batches import Job
from experiments.sweep.trial_runs import Made, made
from fl_sim.logs.reader import RunLog, read_back

DEFAULT_COLUMNS = ("val_accuracy", "val_loss")
"""The columns by which trials are compared: the first of them that a run has a number in."""


@dataclass(frozen=True)
class Trial:
    """One point with all of its seeds."""

    name: str
    """Its folder, in that of the sweep."""
    point: Point
    configs: Sequence[Config]
    """One for each seed; empty where the point is refused."""

    def jobs(self, folder: Path) -> list[Job]:
        """Its runs."""
        return [Job(config, folder / self.name / f"seed-{config.seed}") for config in self.configs]

    def states(self, folder: Path) -> list[Made]:
        """What became of its runs; one failure where the point is refused."""
        return [made(job.place) for job in self.jobs(folder)] or [made(folder / self.name)]


def logs_of(trial: Trial, folder: Path) -> list[RunLog]:
    """The logs of the runs that are over and did not fail."""
    states = trial.states(folder)
    return [
        read_back(one.folder, checked=False) for one in states if one.folder and one.state in ("completed", "stopped")
    ]


def last(log: RunLog, column: str) -> float | None:
    """The number in a column of the rounds that is the final model's; None without one.

    A number that is not finite is none in the log: an earlier model's number must not stand for it.
    """
    if column not in log.rounds:
        return None
    rows = log.rounds[["round", "digest", column]].astype(object)
    records = [{str(k): v for k, v in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")]
    value = of_final_model(records).get(column)
    return None if value is None else float(value)


def changes_validation(key: str) -> bool:
    """Whether trials that differ in this setting have other validation samples, so that none can be chosen by them."""
    return key.startswith(("task", "validation"))


def column_of(choose_by: str, logs: Sequence[RunLog]) -> str:
    """The column of the validation samples by which trials are compared; empty where there are no such samples."""
    columns = [choose_by] if choose_by else list(DEFAULT_COLUMNS)
    # a number in any round: a run whose last number is not finite must not be compared by another column
    known = {name for log in logs for name in columns if name in log.rounds and log.rounds[name].notna().any()}
    return next((column for column in columns if column in known), "")


def result_of(trial: Trial, folder: Path, choose_by: str) -> Result:
    """What a search reads of a trial: the mean over its seeds; none where one of its runs failed."""
    states = trial.states(folder)
    logs = [read_back(one.folder, checked=False) for one in states if one.folder is not None and one.state != "failed"]
    column = column_of(choose_by, logs)
    by_round: dict[int, float] = {}
    for row in logs[0].rounds.to_dict("records") if logs else ():
        if row["round"] > 0 and (value := worth({str(k): v for k, v in row.items()}, column)) is not None:
            by_round[int(row["round"])] = value
    pruned = any(one.state == "pruned" for one in states)
    values = [worth({column: last(log, column)}, column) for log in logs]
    numbers = [value for value in values if value is not None]
    whole = len(numbers) == len(states) and not pruned and all(one.is_over for one in states)
    return Result(statistics.fmean(numbers) if whole else None, by_round, pruned)


def state_of(states: Sequence[Made]) -> str:
    """How a trial stands, such as ``completed`` or ``2 of 5 failed``."""
    if any(one.state == "pruned" for one in states):
        return "pruned"
    counts = Counter({"missing": "to do", "begun": "to do"}.get(one.state, one.state) for one in states)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} of {len(states)} {state}" for state, count in counts.items() if state != "completed")


def number_or_text(value: object) -> object:
    """A varied value for a table: a number where its text is one."""
    try:
        return float(value) if isinstance(value, str) else str(value) if isinstance(value, list) else value
    except ValueError:
        return value


def table(trials: Sequence[Trial], folder: Path, choose_by: str = "") -> tuple[pd.DataFrame, int | None]:
    """One row for each trial, and the index of the one that is best on the validation samples.

    Returns
    -------
    tuple of (DataFrame, int or None)
        Columns: ``trial``; the settings that vary; ``state``; ``seeds``, the runs that are over and did not fail; the
        means over these of the validation's column, of ``accuracy`` and ``loss`` on the test set (of final models),
        with the standard deviation in ``..._std``; ``seconds``, their sum; ``error``. The trial that is chosen has the
        best mean of the validation's column, among those whose runs are all over without a failure; None where there
        are no validation samples, or where these are not the same in all trials.
    """
    logs = {trial.name: logs_of(trial, folder) for trial in trials}
    column = column_of(choose_by, [log for own in logs.values() for log in own])
    rows: list[dict[str, Any]] = []
    for trial in trials:
        own, states = logs[trial.name], trial.states(folder)
        point = {key: number_or_text(value) for key, value in trial.point.items()}
        row: dict[str, Any] = {"trial": trial.name, **point, "state": state_of(states), "seeds": len(own)}
        for name in (*filter(None, [column]), "accuracy", "loss"):
            numbers = [value for log in own if (value := last(log, name)) is not None]
            row[name] = statistics.fmean(numbers) if numbers else float("nan")
            row[f"{name}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else float("nan")
        row["seconds"] = sum(float(log.summary.get("seconds") or 0) for log in own)
        row["error"] = next((one.error for one in states if one.error), None)
        rows.append(row)
    frame = pd.DataFrame(rows)
    if not column or any(changes_validation(key) for trial in trials for key in trial.point):
        return frame, None
    complete = [len(logs[trial.name]) == len(trial.states(folder)) for trial in trials]
    means = frame[column].where(pd.Series(complete, index=frame.index))
    means = -means if falls(column) else means
    return frame, None if means.isna().all() else int(np.nanargmax(means.to_numpy(dtype=float)))
