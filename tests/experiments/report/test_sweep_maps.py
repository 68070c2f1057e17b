"""What a page shows of a sweep: its trials, its choice, heat maps of two settings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.report.content import content
from experiments.report.found_runs import folders, read_runs


def made_sweep(make_run: Any, folder: Path, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """A sweep's folder with one run of its first trial."""
    place = folder / "mu" / str(rows[0]["trial"]) / "seed-0"
    place.mkdir(parents=True)
    shutil.move(make_run("one"), place / "one")
    pd.DataFrame(rows).to_csv(folder / "mu" / "table.csv", index=False)
    known = {"status": "completed", "chosen_by": "val_loss", **facts}
    (folder / "mu" / "sweep.json").write_text(json.dumps(known))
    return folder / "mu"


def row(trial: str, lr: float, name: str, alpha: float, loss: float | None) -> dict[str, Any]:
    settings = {"trial": trial, "local.lr": lr, "strategy": name, "partition.alpha": alpha}
    return {**settings, "state": "failed" if loss is None else "completed", "seeds": 1, "val_loss": loss}


def test_a_grid_is_heat_maps_of_its_first_two_settings_by_the_others(make_run: Any, tmp_path: Path) -> None:
    rows = [row("a", 0.1, "x", 1.0, 0.5), row("b", 0.01, "x", 1.0, 0.9), row("c", 0.1, "y", 1.0, None)]
    rows += [row("d", 0.1, "x", 2.0, 0.4), row("e", 0.01, "y", 2.0, 0.7)]
    folder = made_sweep(make_run, tmp_path, rows, chosen={"trial": "d"})
    page = content(read_runs(folders([folder])))
    [table], [one, two] = page["tables"]["sweep"], page["maps"]
    trials = [cells[table["columns"].index("trial")] for cells in table["rows"]]
    marks = [cells[table["columns"].index("chosen")] for cells in table["rows"]]
    assert trials == ["d", "a", "e", "b", "c"] and marks == ["chosen", None, None, None, None]  # the lowest loss first
    assert "by val_loss: d" in table["note"] and one["falls"]
    assert (one["x"], one["xs"], one["y"], one["ys"]) == ("local.lr", ["0.01", "0.1"], "strategy", ["x", "y"])
    assert one["title"] == "val_loss of mu: partition.alpha = 1.0" and one["z"] == [[0.9, 0.5], [None, None]]
    assert one["chosen"] is None and two["chosen"] == [1, 0] and two["z"] == [[None, 0.4], [0.7, None]]


def test_a_search_has_a_table_alone_and_what_is_odd_hides_nothing(make_run: Any, tmp_path: Path) -> None:
    rows = [row("trial-0000", 0.1, "x", 1.0, 0.5), row("trial-0001", 0.2, "y", 1.0, 0.4)]
    folder = made_sweep(make_run, tmp_path, rows, chosen=None, status="interrupted")
    (folder / "search.json").write_text("{}")
    page = content(read_runs(folders([folder])))
    [table] = page["tables"]["sweep"]
    assert page["maps"] == [] and "was interrupted" in table["note"] and "Nothing was chosen" in table["note"]
    (folder / "sweep.json").write_text("{")
    page = content(read_runs(folders([folder])))
    assert page["maps"] == [] and any("the tables of sweep could not be made" in note for note in page["notes"])
    assert page["tables"]["results"]
