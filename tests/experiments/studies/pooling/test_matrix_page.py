"""A matrix of arms by conditions: runs that are missing are made, the page says what they reached."""

import re
from pathlib import Path

import pandas as pd
import pytest

from experiments.run import main as run
from experiments.studies import study_runs
from experiments.studies.arms import Arm, Study
from experiments.studies.pooling.matrix_page import command, matrix
from experiments.studies.study_runs import Trials
from tests.experiments.config.tiny_world import NAMES

STUDY = Study(
    name="small",
    explanation="A small one.",
    common=f"--task {NAMES}:tiny --model {NAMES}:linear --partition natural --rounds 1 --engine loop".split(),
    conditions={"none": "", "flipped": "--attack sign-flip --attack.share 0.5"},
    arms=[Arm("mean", "--strategy fedavg", "G"), Arm("max", "--strategy maxpool", "G")],
    baselines=("mean",),
    trials=Trials((0.1,), seed=100, column="accuracy", last=1),
    tuned="nothing",
    columns={"accuracy": "accuracy"},
    chance=0.5,
)


def test_a_cell_is_a_mean_over_seeds_with_lowest_and_highest() -> None:
    rows = [
        {"arm": arm, "condition": condition, "seed": seed, "status": "completed", "compared": value + seed / 10}
        for seed in (0, 1)
        for arm, condition, value in (("mean", "none", 0.5), ("mean", "flipped", 0.1), ("max", "none", 0.3))
    ]
    assert matrix(STUDY, pd.DataFrame(rows)) == [
        "|  | none | flipped |",
        "| --- | --- | --- |",
        "| mean | .550 (.500 to .600) | .150 (.100 to .200) |",
        "| max | .350 (.300 to .400) | - |",
        "",
        "Seeds in a cell: 2; runs that failed: 0.",
    ]


def test_the_command_makes_each_missing_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    words = ["--out", str(tmp_path / "runs"), "--seeds", "0"]
    made: list[list[str]] = []

    def counted(flags: list[str]) -> int:
        made.append(flags)
        return run(flags)

    for _ in range(2):
        assert command(STUDY, counted, "", words) == 0  # type: ignore[arg-type]
        assert len(made) == 4
    page = (tmp_path / "small.md").read_text()
    assert re.search(r"## G\n\n\|  \| none \| flipped \|\n.*\n\| mean \| [\d.]+ \| [\d.]+ \|", page)
    assert len(pd.read_csv(tmp_path / "small.csv")) == 4 and (tmp_path / "small.png").stat().st_size > 1000
    assert page in capsys.readouterr().out
