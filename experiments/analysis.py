"""Questions to round logs: one tidy table, what a target costs, means and intervals over seeds, a comparison.

``python -m experiments.analysis RUN [RUN ...] [--target 0.8] [--png PATH]`` prints the comparison. The interval is
Student's ("The probable error of a mean", Biometrika 1908): mean +- t(0.975, n - 1) * std / sqrt(n).
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from fl_sim.reading import CONFIG, RunLog, load

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
        frames.append(pd.concat([pd.DataFrame({"run": log.path.name, **known}, index=log.rounds.index), log.rounds], axis=1))
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
    half = table["n"].map(lambda n: stats.t.ppf(0.975, n - 1) if n > 1 else float("nan")) * table["std"] / table["n"] ** 0.5
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


NOT_COMPARED = {"seed", "out", "data_dir"}


def groups(logs: Iterable[RunLog]) -> tuple[list[str], dict[tuple[Any, ...], list[RunLog]]]:
    """Runs that differ in the seed alone, together; of several runs of one seed the last, because they are the same run.

    Returns what tells the groups apart, ``strategy`` and the dotted config keys that differ between runs of one
    strategy; and the runs by their values of these.
    """
    by_strategy: dict[Any, list[tuple[RunLog, dict[str, Any]]]] = {}
    for log in logs:
        flat = {k: str(v) if isinstance(v, list) else v for k, v in flatten(log.config).items() if k not in NOT_COMPARED}
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


DIGITS = {
    "accuracy": 4,
    "personal_accuracy": 4,
    "loss": 4,
    "rounds_to_target": 0,
    "seconds": 1,
    "mb_up": 1,
    "mb_down": 1,
    "mean": 4,
    "std": 4,
}


def _cell(row: Mapping[Any, Any], name: str) -> str:
    value, spread = row[name], row.get(f"{name}_std")
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)[:12] if name == "digest" else str(value)
    digits = DIGITS.get(name)
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    if name == "rounds_to_target" and row.get("reached", row.get("seeds")) != row.get("seeds"):
        return f"{text} ({row['reached']} of {row['seeds']})"
    return text if spread is None or spread != spread else f"{text} +- {spread:.{4 if digits is None else max(digits, 1)}f}"


def format_table(frame: pd.DataFrame) -> str:
    """A table for the terminal: ``x`` and ``x_std`` in one column, 12 characters of a digest, ``-`` for what is not known.

    Columns that say nothing in any row are left out, and ``status`` where every run is completed.
    """
    names = [n for n in map(str, frame) if not (n.endswith("_std") and n[:-4] in frame) and not frame[n].isna().all() and n != "reached"]
    if "status" in names and (frame["status"] == "completed").all():
        names.remove("status")
    rows = [names, *([_cell(row, name) for name in names] for row in frame.to_dict("records"))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in names]
    lines = ["  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.analysis", description="Compare runs by their round logs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of such folders")
    parser.add_argument("--target", type=float, help="accuracy, a fraction: rounds to it (default: the runs' own target)")
    parser.add_argument("--png", type=Path, metavar="PATH", help="draw the curves into this file")
    options = parser.parse_args(arguments)
    try:
        logs = read(*options.runs)
        print(format_table(compare(logs, options.target)))
        if options.png:
            from experiments.plots import curves  # here, because matplotlib loads slowly and plots stands on this module

            print(curves(logs, options.png))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
