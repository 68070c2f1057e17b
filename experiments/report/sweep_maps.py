"""What a page shows of sweeps: their trials, the one that the validation samples chose, heat maps of two settings."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.frames import FALLS
from experiments.report.found_runs import Found
from experiments.report.result_tables import Table, table

TABLE, FACTS, SEARCH = "table.csv", "sweep.json", "search.json"
"""Files of a sweep's folder: its trials, what was chosen, and of a search what is searched."""
MOST_TRIALS, MOST_MAPS = 500, 12
"""Most rows of a table, and most heat maps of a sweep."""


def sweep_folders(found: Sequence[Found]) -> list[Path]:
    """The folders of the sweeps that made these runs: ``SWEEP/TRIAL/seed-0/RUN``."""
    places = dict.fromkeys(
        one.log.path.resolve().parents[2] for one in found if len(one.log.path.resolve().parents) > 2
    )
    return [place for place in places if (place / TABLE).is_file() and (place / FACTS).is_file()]


def sweep_tables(found: Sequence[Found], maps: list[dict[str, Any]]) -> list[Table]:
    """A table of the trials of each sweep; its heat maps are added to ``maps``.

    Parameters
    ----------
    maps : list of dict
        A heat map has ``title``, ``value`` (the column), ``falls`` (whether lower is better), ``x`` and ``y`` (name of
        the setting), ``xs`` and ``ys`` (its values as text), ``z`` (rows of numbers or null), and ``chosen``, the place
        (column, row) of the trial that was chosen, or null. A search has none: its trials lie on no grid.
    """
    tables = list[Table]()
    for folder in sweep_folders(found):
        frame = pd.read_csv(folder / TABLE)
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        chosen = (facts.get("chosen") or {}).get("trial")
        tables.append(_trials(folder, frame, facts, chosen))
        if facts.get("chosen_by") in frame and not (folder / SEARCH).is_file():
            maps += _maps(folder, frame, str(facts["chosen_by"]), chosen)
    return tables


def _trials(folder: Path, frame: pd.DataFrame, facts: dict[str, Any], chosen: object) -> Table:
    column, note = facts.get("chosen_by"), ""
    if facts.get("status") != "completed":
        note = "The sweep was interrupted: these are the trials of that moment. "
    if chosen is None:
        note += "Nothing was chosen: there are no validation samples, or they differ between trials."
    else:
        note += (
            f"Chosen on the validation samples alone, by {column}: {chosen}. Numbers of the test set decide nothing."
        )
    shown = frame.assign(chosen=frame["trial"].map(lambda name: "chosen" if name == chosen else None))
    if column in frame:
        shown = shown.sort_values(str(column), ascending=_falls(str(column)), kind="stable")
    if len(shown) > MOST_TRIALS:
        note += f" The best {MOST_TRIALS} of {len(shown)} trials are shown."
    rows = shown.head(MOST_TRIALS).astype(object).to_numpy().tolist()
    cells = [[None if value != value else value for value in row] for row in rows]
    return table(f"Trials of {folder.name}", list(map(str, shown)), cells, note)


def _falls(column: str) -> bool:
    return any(part in column for part in FALLS)


def _maps(folder: Path, frame: pd.DataFrame, value: str, chosen: object) -> list[dict[str, Any]]:
    """Heat maps of the first two settings with several values, one for each combination of the others."""
    columns = list(map(str, frame))
    varied = [k for k in columns[columns.index("trial") + 1 : columns.index("state")] if frame[k].nunique() > 1]
    if len(varied) < 2:
        return []
    (x, y), others = varied[:2], varied[2:]
    xs, ys = ([*dict.fromkeys(frame[key].sort_values())] for key in (x, y))
    found = []
    for values in itertools.islice(itertools.product(*(dict.fromkeys(frame[k]) for k in others)), MOST_MAPS):
        part = frame
        for key, own in zip(others, values, strict=True):
            part = part[part[key] == own]
        cells = {(row[x], row[y]): row for row in part.to_dict("records")}
        numbers = [[cells.get((a, b), {}).get(value) for a in xs] for b in ys]
        best = [key for key, row in cells.items() if row["trial"] == chosen]
        where = ", ".join(f"{key} = {own}" for key, own in zip(others, values, strict=True))
        found.append(
            {
                "title": f"{value} of {folder.name}" + (f": {where}" if where else ""),
                **{"value": value, "falls": _falls(value), "x": x, "y": y},
                **{"xs": list(map(str, xs)), "ys": list(map(str, ys))},
                "z": [[None if n is None or n != n else float(n) for n in row] for row in numbers],
                "chosen": [xs.index(best[0][0]), ys.index(best[0][1])] if best else None,
            }
        )
    return found
