"""Round logs as data frames: a tidy table of several runs, the cost of a target, intervals over seeds, groups.

The interval is Student's ("The probable error of a mean", Biometrika 1908): mean +- t(0.975, n - 1) * std / sqrt(n).
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy import stats

from experiments.config.stored import renamed
from fl_sim.dotted import flatten
from fl_sim.logs.columns import CONFIG
from fl_sim.logs.reader import RunLog, read_back

Run = RunLog | str | Path
"""A log, a run folder, or a folder of run folders."""

FACTS = {
    "strategy": "strategy.name",
    "seed": "seed",
    "task": "task.name",
    "model": "model.name",
    "partition": "partition.name",
    "alpha": "partition.alpha",
    "engine": "engine",
}
"""Columns that ``tidy`` puts before those of the rounds, and the config keys that they come from."""

MEGABYTE = 1e6
"""Number of bytes in a megabyte."""


def read(*runs: Run) -> list[RunLog]:
    """The logs of ``runs``, in order; those of a folder of runs in the order of their names.

    Raises
    ------
    ValueError
        For a folder that holds no run, and where ``runs`` is empty.
    """
    logs = []
    for run in runs:
        if isinstance(run, RunLog):
            logs.append(run)
            continue
        inside = sorted(file.parent for file in Path(run).glob(f"*/{CONFIG}"))
        folders = [run] if not inside or (Path(run) / CONFIG).exists() else inside
        logs += map(read_back, folders)
    if not logs:
        raise ValueError("no runs given; name at least one run's folder")
    return logs


def config_of(log: RunLog) -> dict[str, object]:
    """A run's config by dotted key; where an older run says ``labels``, it is ``labels-equal``, its name of today."""
    return flatten(renamed(log.config))


def facts(log: RunLog) -> dict[str, object]:
    """The values of ``FACTS`` for a run: from its summary (which has no engine ``auto``), else its config.

    The partition's name is the config's, which says what it meant then.
    """
    flat = config_of(log)
    found = {name: log.summary.get(name, flat.get(key, flat.get(name))) for name, key in FACTS.items()}
    return {**found, "partition": flat.get(FACTS["partition"], found["partition"])}


def tidy(*runs: Run) -> pd.DataFrame:
    """The rounds of several runs in one table: ``run``, columns of ``FACTS``, columns of rounds.

    ``run`` is the folder's name, or its path where another folder has the same name. A column of the user's own that is
    named as one of the others, such as ``alpha``, is ``own_alpha``.
    """
    logs, frames = read(*runs), []
    folders = Counter(log.path.name for log in {log.path: log for log in logs}.values())
    for log in logs:
        name = log.path.name if folders[log.path.name] == 1 else str(log.path)
        known = {name: float("nan") if value is None else value for name, value in facts(log).items()}
        begin = pd.DataFrame({"run": name, **known}, index=log.rounds.index)
        rounds = log.rounds.rename(columns={k: f"own_{k}" for k in begin})
        frames.append(pd.concat([begin, rounds], axis=1))
    return pd.concat(frames, ignore_index=True)


class ToTarget(NamedTuple):
    """The cost of reaching a target; None in all fields for a run that did not reach it, or whose log does not say."""

    rounds: int | None
    """The first round that reached the target; 0 is the initial model. Of a fork: the first that its log has."""
    seconds: float | None
    """Wall time of the rounds until then, without evaluation, in seconds; None for a fork, whose log begins later."""
    bytes_down: int | None
    """Bytes of models sent to clients until then; None as ``seconds``, and where a round lacks the number."""
    bytes_up: int | None
    """Bytes of models sent to the server until then; None as ``bytes_down``."""


RISES, FALLS = ("accuracy", "f1", "auroc"), ("loss", "calibration", "share_worse")
"""Parts of the names of numbers that are better the higher they are, or the lower."""


def to_target(run: Run, target: float, metric: str = "accuracy", at_most: bool | None = None) -> ToTarget:
    """Rounds, seconds and bytes to the first round whose ``metric`` is at least ``target``, or at most for a loss.

    ``at_most`` says which, where the name does not: an ``mse`` is to fall, a ``precision`` to rise.

    Raises
    ------
    ValueError
        For a metric that the run does not have, or that is no number; also where it is null in every round, and where
        neither its name nor ``at_most`` says whether it is to fall.
    """
    (log,) = read(run)
    rounds = log.rounds
    numbers = [k for k in map(str, rounds) if pd.api.types.is_numeric_dtype(rounds[k]) and rounds[k].notna().any()]
    if metric not in numbers or metric == "round":
        raise ValueError(f"metric = {metric!r}: {log.path} has no such number; it has {', '.join(numbers)}")
    falls, rises = (any(part in metric for part in parts) for parts in (FALLS, RISES))
    if at_most is None and falls == rises:
        why = "its name does not say whether it is to fall to the target or to rise; give at_most=True or False"
        raise ValueError(f"metric = {metric!r}: {why}")
    values = rounds[metric]
    reached = rounds[values <= target if (falls if at_most is None else at_most) else values >= target]
    if reached.empty:
        return ToTarget(None, None, None, None)
    first = int(reached["round"].iloc[0])
    until = rounds[(rounds["round"] <= first) & (rounds["round"] > 0)]
    if rounds["round"].iloc[0] > 0:
        return ToTarget(first, None, None, None)
    sums = until[["seconds", "bytes_down", "bytes_up"]].sum(min_count=len(until))
    seconds, down, up = (None if pd.isna(x) else float(x) for x in sums)
    return ToTarget(first, seconds, None if down is None else int(down), None if up is None else int(up))


def interval(frame: pd.DataFrame, by: str | Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """Mean, standard deviation and 95 % t-interval of a column over seeds, in each group.

    Parameters
    ----------
    frame : DataFrame
        One row for each run and group, such as the last rounds of ``tidy``; rows without a value are left out.
    by : str or sequence of str
        Columns whose values make a group.
    value : str
        The column to average.

    Returns
    -------
    DataFrame
        ``by``, then ``mean, std, n, low, high``; ``n`` is the number of seeds. One seed has no ``std`` and no interval
        (NaN).

    Raises
    ------
    ValueError
        Where a group has several rows of one seed: the rounds of a run are no independent samples.
    """
    keys = [by] if isinstance(by, str) else list(by)
    rows = frame[frame[value].notna()]
    if "seed" in rows and "seed" not in keys:
        repeated = rows[rows.duplicated([*keys, "seed"])]
        if len(repeated):
            where = ", ".join(f"{k} = {repeated.iloc[0][k]}" for k in [*keys, "seed"])
            hint = "keep one row a seed (the last round, say), or name what else differs"
            raise ValueError(f"by = {keys}: several rows with {where}; {hint}")
    grouped = rows.groupby(keys, sort=False, dropna=False)[value]
    table = grouped.agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "n"})
    half = (
        table["n"].map(lambda n: stats.t.ppf(0.975, n - 1) if n > 1 else float("nan"))
        * table["std"]
        / table["n"] ** 0.5
    )
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


NOT_COMPARED = {"seed", "out", "data_dir"}
"""Settings in which runs of one group may differ."""
HOW = ("engine", "ray.", "block_size", "chunk", "threads", "device", "client_timeout", "checkpoint_", "digest_every")
"""Beginnings of settings that say how a run is computed, not what: strategies may differ in them without a word."""


def has_ended(log: RunLog) -> bool:
    """Whether a run did its rounds, or a rule or a callback stopped it: no kill, failure or interruption did."""
    interrupted = str(log.summary.get("stopped") or "").startswith("interrupted")
    return log.summary.get("status") in ("completed", "stopped") and not interrupted


def groups(logs: Iterable[RunLog]) -> tuple[list[str], dict[tuple[object, ...], list[RunLog]]]:
    """Group the runs that differ only in the seed; several runs with the same seed are repeats.

    Of repeats the last one is kept that has ended, or the last one where none has; where they ended with different
    models there is a warning.

    Returns
    -------
    tuple of (list of str, dict)
        The keys in which groups differ: ``strategy``, the dotted config keys that differ between runs of one strategy,
        and those that have different values with different strategies, but for the strategies' own and ``HOW``. And
        the logs of each group by its values of these keys.
    """
    by_strategy: dict[object, list[tuple[RunLog, dict[str, object]]]] = {}
    for log in logs:
        flat = {k: str(v) if isinstance(v, list) else v for k, v in config_of(log).items() if k not in NOT_COMPARED}
        by_strategy.setdefault(facts(log)["strategy"], []).append((log, flat))
    keys = ["strategy"]
    for members in by_strategy.values():
        settings = dict.fromkeys(key for _, flat in members for key in flat)
        keys += [k for k in settings if k not in keys and len({flat.get(k) for _, flat in members}) > 1]
    every = [flat for members in by_strategy.values() for _, flat in members]
    for key in dict.fromkeys(k for flat in every for k in flat if not k.startswith(("strategy.", *HOW))):
        if key not in keys and len({flat[key] for flat in every if key in flat}) > 1:
            keys.append(key)
    grouped: dict[tuple[object, ...], dict[object, RunLog]] = {}
    for strategy, members in by_strategy.items():
        for log, flat in members:
            seed = facts(log)["seed"]
            own = grouped.setdefault((strategy, *map(flat.get, keys[1:])), {})
            name = log.path if seed is None else seed
            own[name] = _kept(own[name], log) if name in own else log
    return keys, {values: list(by_seed.values()) for values, by_seed in grouped.items()}


def _kept(first: RunLog, second: RunLog) -> RunLog:
    """The one of two repeats that counts; warns where both have ended, with different models."""
    if has_ended(first) and not has_ended(second):
        return first
    one, other = (log.summary.get("digest") for log in (first, second))
    if has_ended(first) and one != other and None not in (one, other):
        what = f"{first.path.name} and {second.path.name} have one seed and the same settings, and other models"
        warnings.warn(f"{what}: the first one is left out; they differ in what a config does not hold", stacklevel=4)
    return second
