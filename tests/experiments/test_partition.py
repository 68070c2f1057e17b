"""``python -m experiments.partition``: numbers, a table and a picture of who owns what."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from clients.feature_shift import shifts
from experiments.partition import main
from fl_sim.learning.arrays import from_arrays


def test_it_prints_draws_and_saves(capsys, tmp_path) -> None:
    words = [
        "--task",
        "digits",
        "--partition",
        "shards",
        "--partition.shards_per_client",
        "2",
        "--clients",
        "10",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    numbers = json.loads(out.splitlines()[-1])
    picture = Path(numbers["picture"])
    assert picture.parent.parent == tmp_path and picture.stat().st_size > 5000
    rows = pd.read_csv(picture.parent / "clients.csv")
    assert rows["samples"].sum() == 1438 and len(rows) == 10 and numbers["clients"] == 10
    assert rows["labels"].max() <= 4  # two shards of sorted labels hold at most four of them
    assert "largest_share" in out


@pytest.mark.parametrize("clients, names", [(0, ["ann", "bob", "cleo"]), (2, ["ann; cleo", "bob"])])
def test_clients_with_names_have_them_in_the_last_column(clients, names, capsys, tmp_path, monkeypatch) -> None:
    task = from_arrays(np.eye(9), np.arange(9) % 2, clients=["cleo", "ann", "bob"] * 3)
    monkeypatch.setitem(sys.modules, "own_sites", SimpleNamespace(task=task))
    words = ["--task", "own_sites:task", "--partition", "natural", "--out", str(tmp_path)]
    assert main([*words, *(["--clients", str(clients)] if clients else [])]) == 0
    [folder] = tmp_path.iterdir()
    rows = pd.read_csv(folder / "clients.csv")
    assert list(rows)[-1] == "name" and rows["name"].tolist() == names
    assert names[-1] in capsys.readouterr().out


def test_the_shift_of_each_client_is_shown(tmp_path) -> None:
    words = ["--task", "digits", "--clients", "5", "--partition.feature_shift", "0.5", "--partition.seed", "3"]
    assert main([*words, "--out", str(tmp_path), "--quiet"]) == 0
    rows = pd.read_csv(next(tmp_path.iterdir()) / "clients.csv")
    for name, values in shifts(3, np.arange(5), 0.5).items():
        assert rows[name].tolist() == pytest.approx(values.tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "words",
    [
        ["--partition", "dirichlett"],
        ["--partition", "natural"],
        ["--clients", "2000"],
        ["--partition.alpha", "1"],
        ["--partition.feature_shift", "2"],
    ],
)
def test_bad_input(capsys, tmp_path, words) -> None:
    assert main([*words, "--out", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "no").exists()
