"""Questions to round logs: one tidy table, what a target costs, means and intervals over seeds, a comparison.

``python -m experiments.analysis RUN [RUN ...] [--target 0.8] [--png PATH]`` prints the comparison. The interval is
Student's ("The probable error of a mean", Biometrika 1908): mean +- t(0.975, n - 1) * std / sqrt(n).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from fl_sim.logs.columns import CONFIG
from fl_sim.logs.reader import RunLog, load

Run = RunLog | str | Path
"""A log that is loaded, a run's folder, or a folder of such folders."""

FACTS = {
    "strategy": "strategy.name",
    "seed": "seed",
    "task": "task.name",
    "model": "model.name",
    "partition": "partition.name",
    "alpha": "partition.alpha",
    "engine": "engine",
}
"""Columns that ``tidy`` puts before those of the rounds, and where in the config they come from."""

MEGABYTE = 1e6


def read(*runs: Run) -> list[RunLog]:
    """The logs of ``runs``, in order; a folder of runs stands for its runs by name. Raises ValueError that names what is none."""
    logs = []
    for run in runs:
        if isinstance(run, RunLog):
            logs.append(run)
            continue
        inside = sorted(file.parent for file in Path(run).glob(f"*/{CONFIG}"))
        logs += [load(run)] if not inside or (Path(run) / CONFIG).exists() else [load(folder) for folder in inside]
    if not logs:
        raise ValueError("no runs given; name at least one run's folder")
    return logs


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted names: ``{"strategy": {"mu": 1}}`` -> ``{"strategy.mu": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def facts(log: RunLog) -> dict[str, Any]:
    """What a run is: the keys of ``FACTS``, from its summary (which engine ``auto`` came to, say), else its config."""
    flat = flatten(log.config)
    return {name: log.summary.get(name, flat.get(key, flat.get(name))) for name, key in FACTS.items()}


def tidy(*runs: Run) -> pd.DataFrame:
    """Every row of the rounds of several runs in one table: ``run`` (folder name), the columns of ``FACTS``, then the rounds' own."""
    frames = []
    for log in read(*runs):
        known = {name: float("nan") if value is None else value for name, value in facts(log).items()}
        frames.append(
            pd.concat([pd.DataFrame({"run": log.path.name, **known}, index=log.rounds.index), log.rounds], axis=1)
        )
    return pd.concat(frames, ignore_index=True)


class ToTarget(NamedTuple):
    """What reaching a target took; None throughout for a run that never did."""

    rounds: int | None
    """The first round that reached it; 0 is the initial model."""
    seconds: float | None
    """Of the rounds until then, without evaluation."""
    bytes_down: int | None
    bytes_up: int | None


def to_target(run: Run, target: float, metric: str = "accuracy") -> ToTarget:
    """Rounds, seconds and bytes to the first round whose ``metric`` is at least ``target`` (at most, for a loss).

    Raises ValueError for a metric that the run does not have.
    """
    (log,) = read(run)
    rounds = log.rounds
    if metric not in rounds or metric in ("round", "digest"):
        raise ValueError(f"metric = {metric!r}: {log.path} has no such number; it has {', '.join(rounds.columns)}")
    values = rounds[metric]
    reached = rounds[values <= target if "loss" in metric else values >= target]
    if reached.empty:
        return ToTarget(None, None, None, None)
    first = int(reached["round"].iloc[0])
    until = rounds[rounds["round"] <= first]
    return ToTarget(first, float(until["seconds"].sum()), int(until["bytes_down"].sum()), int(until["bytes_up"].sum()))


def interval(frame: pd.DataFrame, by: str | Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """Mean, standard deviation, number of seeds and 95 % t-interval of ``value`` in each group: columns ``mean, std, n, low, high``.

    Rows without a value are left out; one seed has neither spread nor interval (NaN). Raises ValueError where a
    group holds several rows of one seed, because rounds of one run are no independent samples.
    """
    keys = [by] if isinstance(by, str) else list(by)
    rows = frame[frame[value].notna()]
    if "seed" in rows and "seed" not in keys:
        repeated = rows[rows.duplicated([*keys, "seed"])]
        if len(repeated):
            where = ", ".join(f"{k} = {repeated.iloc[0][k]}" for k in [*keys, "seed"])
            raise ValueError(
                f"by = {keys}: several rows with {where}; keep one row a seed (the last round, say), or name what else differs"
            )
    grouped = rows.groupby(keys, sort=False, dropna=False)[value]
    table = grouped.agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "n"})
    half = (
        table["n"].map(lambda n: stats.t.ppf(0.975, n - 1) if n > 1 else float("nan"))
        * table["std"]
        / table["n"] ** 0.5
    )
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


NOT_COMPARED = {"seed", "out", "data_dir"}


def groups(logs: Iterable[RunLog]) -> tuple[list[str], dict[tuple[Any, ...], list[RunLog]]]:
    """Runs that differ in the seed alone, together; of several runs of one seed the last, because they are the same run.

    Returns what tells the groups apart, ``strategy`` and the dotted config keys that differ between runs of one
    strategy; and the runs by their values of these.
    """
    by_strategy: dict[Any, list[tuple[RunLog, dict[str, Any]]]] = {}
    for log in logs:
        flat = {
            k: str(v) if isinstance(v, list) else v for k, v in flatten(log.config).items() if k not in NOT_COMPARED
        }
        by_strategy.setdefault(facts(log)["strategy"], []).append((log, flat))
    keys = ["strategy"]
    for some in by_strategy.values():
        settings = dict.fromkeys(key for _, flat in some for key in flat)
        keys += [k for k in settings if k not in keys and len({flat.get(k) for _, flat in some}) > 1]
    grouped: dict[tuple[Any, ...], dict[Any, RunLog]] = {}
    for strategy, some in by_strategy.items():
        for log, flat in some:
            seed = facts(log)["seed"]
            grouped.setdefault((strategy, *map(flat.get, keys[1:])), {})[log.path if seed is None else seed] = log
    return keys, {values: list(by_seed.values()) for values, by_seed in grouped.items()}
