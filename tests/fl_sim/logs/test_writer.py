"""Round logs are read as they were written, also after a kill, a full disk or damage."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from fl_sim import tree
from fl_sim.logs.columns import COLUMNS, check_own
from fl_sim.logs.reader import load
from fl_sim.logs.writer import RoundLog

ROOT = Path(__file__).parents[3]
CONFIG = 'seed = 3\n\n[strategy]\nname = "fedavg"\n'


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RoundLog]:
    with RoundLog.create(tmp_path / "runs", "fedavg", CONFIG) as log:
        yield log


def test_a_run_reads_back_as_it_was_written(log: RoundLog) -> None:
    model = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(0), "count": torch.tensor(7)}
    log.round({"round": 0, "accuracy": 0.125, "loss": 2.5, "clients": 0})
    log.round({"round": 1, "accuracy": 0.5, "loss": 1.5, "clients": 2, "digest": "ab", "my_f1": 0.25})
    log.clients([{"round": 1, "client": c, "phase": "train", "status": "completed", "loss": c / 2} for c in (4, 9)])
    log.event("retry", block=3, reason="killed")
    log.model(model, server_round=1)
    log.summary({"status": "completed", "rounds": 1, "versions": {"torch": "2"}})
    run = load(log.path)
    assert run.rounds["round"].tolist() == [0, 1] and run.rounds["round"].dtype == np.int64
    assert run.rounds["accuracy"].tolist() == [0.125, 0.5]
    assert run.rounds["my_f1"].isna().tolist() == [True, False]
    assert run.clients[["client", "loss"]].to_numpy().tolist() == [[4, 2.0], [9, 4.5]]
    assert run.events[["event", "block", "reason"]].to_numpy().tolist() == [["retry", 3, "killed"]]
    assert run.config == {"seed": 3, "strategy": {"name": "fedavg"}}
    assert run.summary == {"status": "completed", "rounds": 1, "versions": {"torch": "2"}}
    assert run.model().keys() == model.keys() and all(torch.equal(run.model()[k], v) for k, v in model.items())
    with safe_open(log.path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"round": "1", "digest": tree.digest(model)}


def test_documented_columns_are_always_there_and_come_first(log: RoundLog) -> None:
    empty = load(log.path)
    assert empty.summary == {} and len(empty.rounds) == len(empty.clients) == len(empty.events) == 0
    log.round({"zeta": 1, "round": 0})
    run = load(log.path)
    assert list(run.rounds.columns) == [*COLUMNS["rounds"], "zeta"]
    assert list(run.clients.columns) == list(COLUMNS["clients"])
    assert run["rounds"] is run.rounds
    numbers = [name for name, column in COLUMNS["rounds"].items() if column.unit != "text"]
    for frame in (empty.rounds, run.rounds):
        assert all(pd.api.types.is_numeric_dtype(frame[name]) for name in numbers)
    with pytest.raises(KeyError, match="a run log has path, rounds, clients"):
        run["round"]


def test_each_line_is_strict_json_with_null_for_what_is_not_a_number(log: RoundLog) -> None:
    log.round(
        {
            "round": 0,
            "accuracy": float("nan"),
            "loss": np.float32("inf"),
            "lr": torch.tensor(0.5),
            "clients": np.int64(3),
            "examples": True,
        }
        | {"mine": [np.float64(1.5), float("-inf")], "deep": {"x": np.array([1, 2])}, "where": Path("a") / "b"}
    )

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    row = json.loads((log.path / "rounds.jsonl").read_text(), parse_constant=refuse)
    assert (
        row["accuracy"] is None
        and row["loss"] is None
        and row["lr"] == 0.5
        and row["clients"] == 3
        and row["examples"] is True
    )
    assert row["mine"] == [1.5, None] and row["deep"] == {"x": [1, 2]} and row["where"] == "a/b"
    assert row["train_loss"] is None  # a documented column that the row lacks
    assert math.isnan(load(log.path).rounds["loss"][0])
    with pytest.raises(TypeError, match="not a object"):
        log.event("bad", value=object())


def test_one_line_a_round_in_order(log: RoundLog) -> None:
    log.round({"round": 0})
    log.round({"round": 2})
    for number in (2, 1, None, 1.5):
        with pytest.raises(ValueError, match=re.escape(f"round = {number!r}")):
            log.round({"round": number})
    assert load(log.path).rounds["round"].tolist() == [0, 2]


def test_a_half_written_last_line_is_left_out_and_a_damaged_one_named(log: RoundLog) -> None:
    log.round({"round": 0})
    file = log.path / "rounds.jsonl"
    with file.open("a") as half:
        half.write('{"round": 1, "acc')
    assert load(log.path).rounds["round"].tolist() == [0]
    with file.open("a") as half:
        half.write("\n")
    with pytest.raises(ValueError, match=r"rounds.jsonl: line 2 is damaged"):
        load(log.path)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from fl_sim.logs.writer import RoundLog
log = RoundLog.create(Path({str(tmp_path)!r}), "killed", "")
for n in range(3):
    log.round({{"round": n}})
    log.clients([{{"round": n, "client": c}} for c in range(2)])
log.event("last")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    run = load(next(tmp_path.iterdir()))
    assert (
        run.rounds["round"].tolist() == [0, 1, 2] and len(run.clients) == 6 and run.events["event"].tolist() == ["last"]
    )


def _create(parent: Path, name: str) -> Path:
    with RoundLog.create(parent, name, "") as log:
        return log.path


def test_runs_that_start_together_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [path.name for path in pool.map(lambda _: _create(tmp_path, "same"), range(80))]
    assert len(set(names)) == 80 == len(list(tmp_path.iterdir()))
    assert all(re.fullmatch(r"same-\d{8}-\d{6}(-\d+)?", name) for name in names)


@pytest.mark.parametrize("name", ["my.module:Fed/../Avg", "..", "", "a b", "x" * 400])
def test_any_name_makes_a_folder_directly_in_the_parent(tmp_path: Path, name: str) -> None:
    assert _create(tmp_path, name).resolve().parent == tmp_path.resolve()


def test_a_parent_that_cannot_hold_runs_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    for parent in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(ValueError, match=f"out = '{parent}'"):
            _create(parent, "run")
    assert (tmp_path / "file").read_text() == "kept"

    def denied(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(ValueError, match=r"out = .*Permission denied.*can be written"):
        _create(tmp_path / "runs", "run")


def test_model_and_summary_are_replaced_whole(log: RoundLog, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = torch.arange(4.0)
    log.model(
        {"a": shared, "b": shared[2:], "c": shared.reshape(2, 2).T}, 1
    )  # views of one tensor, which the format itself refuses
    assert load(log.path).model()["c"].tolist() == [[0, 2], [1, 3]]
    log.summary({"status": "stopped"})

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        log.model({"a": torch.ones(1)}, 2)
    with pytest.raises(OSError, match="No space"):
        log.summary({"status": "completed"})
    assert load(log.path).model()["b"].tolist() == [2, 3] and load(log.path).summary == {"status": "stopped"}
    assert sorted(p.name for p in log.path.iterdir()) == [
        "clients.jsonl",
        "config.toml",
        "events.jsonl",
        "model.safetensors",
        "rounds.jsonl",
        "summary.json",
    ]


def test_a_folder_without_a_run_is_named(log: RoundLog, tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "gone", "no such folder"),
        (tmp_path, "it has no config.toml"),
        (log.path / "config.toml", "it is a file"),
    ]:
        with pytest.raises(ValueError, match=f"{re.escape(repr(str(path)))} is not the folder of a run: .*{why}"):
            load(path)
    with pytest.raises(ValueError, match="no model can be read"):
        load(log.path).model()
    (log.path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="no model can be read"):
        load(log.path).model()
    (log.path / "config.toml").write_text("seed = ")
    with pytest.raises(ValueError, match="config, summary or names are damaged"):
        load(log.path)


def test_a_closed_log_is_closed_and_can_be_appended_to(log: RoundLog) -> None:
    with log:
        log.round({"round": 0})
    with pytest.raises(ValueError, match="closed"):
        log.event("late")
    with RoundLog(log.path) as again:
        again.round({"round": 1})
    assert load(log.path).rounds["round"].tolist() == [0, 1]


def test_own_names_may_be_anything_but_documented_ones() -> None:
    check_own(["f1", "my_loss"])
    with pytest.raises(ValueError, match="metric 'train_loss': rounds.jsonl has a column of this name"):
        check_own(["f1", "train_loss"])


@pytest.mark.parametrize("table", list(COLUMNS))
def test_the_document_and_the_code_have_the_same_table(table: str) -> None:
    section = re.search(rf"^## `{table}\.json.*?(?=^## |\Z)", (ROOT / "docs" / "logs.md").read_text(), re.M | re.S)
    assert section is not None
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section.group(), re.M)
    assert rows == [(name, column.unit, column.meaning) for name, column in COLUMNS[table].items()]
