"""Tables of a page: final numbers of each run, their means over seeds, paired differences."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

from experiments.analysis.compare import outcome
from experiments.analysis.frames import facts, interval
from experiments.analysis.seed_statistics import paired
from experiments.report.found_runs import Found, state

Table = dict[str, Any]
"""``title``, ``note``, ``columns`` (names), ``rows``: lists of cells, which are null, numbers, text or ``{v, t}``: a
value by which a column is sorted, and how it is shown."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> Table:
    """A table, without the columns (but the first) in which no row has anything."""
    cells = [[_cell(value) for value in row] for row in rows]
    used = [n for n in range(len(columns)) if n == 0 or any(row[n] not in (None, "") for row in cells)]
    return {
        "title": title,
        "note": note,
        "columns": [columns[n] for n in used],
        "rows": [[row[n] for n in used] for row in cells],
    }


def _cell(value: Any) -> object:
    """A value as JSON has it: no NaN or infinity."""
    if value is None or isinstance(value, str | dict | bool):
        return value
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if number == number and abs(number) != float("inf") else None


def final_numbers(found: Sequence[Found]) -> pd.DataFrame:
    """A row for each run.

    Its columns are ``run``, ``label``, ``seed``, ``state``, ``rounds`` done, ``of`` how many, and the numbers of
    ``outcome``.
    """
    rows = []
    for one in found:
        log, rounds = one.log, one.log.rounds
        known: dict[str, Any] = {"run": one.name, "label": one.label, "seed": facts(log)["seed"], "state": state(log)}
        known["rounds"] = int(rounds["round"].max()) if len(rounds) else 0
        known["of"] = log.config.get("rounds")
        known |= outcome(log)
        known["virtual_time"] = rounds["virtual_time"].max()
        known |= {name: rounds[name].sum(min_count=1) for name in ("failed", "dropped")}
        known |= {name: log.summary.get(name) for name in ("best_round", "best_accuracy", "unseen_accuracy")}
        digest = rounds["digest"].dropna()
        known["digest"] = str(digest.iloc[-1])[:12] if len(digest) else None
        known["stopped by"] = log.summary.get("stopped") or log.summary.get("error")
        rows.append(known)
    return pd.DataFrame(rows)


def result_tables(found: Sequence[Found], notes: list[str]) -> list[Table]:
    """The tables; what warnings say is added to ``notes``."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        frame = final_numbers(found)
        tables = [
            table(
                "Runs",
                list(map(str, frame)),
                frame.astype(object).to_numpy().tolist(),
                "Numbers of the final model; of a run that goes on those of its last evaluation.",
            )
        ]
        for make in (_over_seeds, _paired):
            tables += _tried(make, frame, notes)
    notes += [str(one.message) for one in warned if issubclass(one.category, UserWarning)]
    return tables


def _tried(make: Callable[[pd.DataFrame], list[Table]], frame: pd.DataFrame, notes: list[str]) -> list[Table]:
    try:
        return make(frame)
    except ValueError as error:
        notes.append(f"no comparison over seeds: {error}")
        return []


def _one_a_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Of several runs with one label and seed the last."""
    return frame.drop_duplicates(["label", "seed"], keep="last")


NUMBERS = ("accuracy", "loss", "val_accuracy", "personal_accuracy", "rounds_to_target", "seconds", "mb_up", "mb_down")
"""What is averaged over seeds."""


def _over_seeds(frame: pd.DataFrame) -> list[Table]:
    """Mean and 95 % t-interval of each number over the seeds of each label."""
    frame = _one_a_seed(frame)
    if len(frame) < 2:
        return []
    counts = frame.groupby("label", sort=False).size()
    columns: dict[str, Mapping[str, object]] = {}
    for name in NUMBERS:
        if pd.to_numeric(frame[name], errors="coerce").notna().any():
            means = interval(frame, "label", name)
            columns[name] = {row["label"]: _mean(row, counts[row["label"]]) for row in means.to_dict("records")}
    rows = [[label, int(counts[label]), *(columns[name].get(label) for name in columns)] for label in counts.index]
    note = (
        "Mean over seeds, and half of its 95 % interval by Student's t, which needs at least two seeds (and is wide "
        "with two); in brackets the seeds that have the number, where not all have it."
    )
    return [table("Means over seeds", ["label", "seeds", *columns], rows, note)]


def _mean(row: Mapping[Any, Any], seeds: int) -> dict[str, object]:
    mean, high = row["mean"], row["high"]
    half = high - mean
    spread = "" if half != half else f" ± {half:.0f}" if half >= 100 else f" ± {half:.2g}"
    return {"v": float(mean), "t": f"{mean:.4g}{spread}" + (f" ({row['n']})" if row["n"] < seeds else "")}


def _paired(frame: pd.DataFrame) -> list[Table]:
    """What each label has more than the first on the same seeds."""
    frame = _one_a_seed(frame)
    value = "accuracy" if frame["accuracy"].notna().any() else "loss"
    labels = list(dict.fromkeys(frame["label"]))
    if len(labels) < 2 or frame[value].isna().all() or frame["seed"].isna().any():
        return []
    gaps = paired(frame, "label", value)
    if gaps.empty or (gaps["n"] < 2).all():
        return []
    rows = [
        [row["label"], row["n"], row["mean"], row["low"], row["high"], f"{row['wins']} of {row['n']}"]
        for row in gaps.to_dict("records")
    ]
    note = f"Of {value}, on the same seeds: mean difference, its 95 % interval, and the seeds with more than the first."
    return [table(f"Differences from {labels[0]}", ["label", "seeds", "difference", "low", "high", "more"], rows, note)]


def t_values(most: int = 100) -> list[float]:
    """Student's t(0.975, n - 1) for n = 0, 1, ..., ``most`` runs; 0 below two."""
    return [0.0 if n < 2 else round(float(stats.t.ppf(0.975, n - 1)), 6) for n in range(most + 1)]
