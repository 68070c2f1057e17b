"""Studies in virtual time: which numbers are chosen, times and ratios by hand, and a study of two runs an arm."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.config.command_line import parse
from experiments.run import main as run
from experiments.runs.virtual_time.run_clock import asked_clients
from experiments.studies import study_runs
from experiments.studies.time.async_cifar import STUDY as CIFAR
from experiments.studies.time.async_mnist import STUDY
from experiments.studies.time.target_times import TimedArm, TimeStudy, at_end, chosen, of_classes, time_to
from experiments.studies.time.times_page import command, over, times_less
from fl_sim.logs.reader import RunLog, load
from fl_sim.logs.writer import RoundLog

ARM = TimedArm("sync", "--cohort 2", ("--server.lr 1", "--server.lr 2", "--server.lr 3"))
WORLD = "--task tests.experiments.config.tiny_world:tiny --model lr --partition iid --clients 4 --validation 0.2 "
TINY = TimeStudy(
    name="tiny",
    explanation="Tiny.",
    common=f"{WORLD} --profile halfnormal --profile.per launch --set_metrics class_accuracy --rounds 1",
    conditions={"all alike": "--local.batch_size 2"},
    arms=(TimedArm("sync", "--cohort 2", ("--server.lr 1", "--server.lr 0.5")), TimedArm("fast", "--cohort 1", ("",))),
    targets=(0.05, 2.0),
    apart=(1,),
)


def made(place: Path, rows: list[dict[str, Any]], status: str = "stopped") -> RunLog:
    """A run with these rounds in a folder."""
    with RoundLog.create(place, "run", "seed = 0\n") as log:
        for number, row in enumerate(rows):
            log.round({"round": number, **row})
        log.summary({"status": status})
    return load(log.path)


def lines(*accuracies: float | None, size: float = 1e6) -> list[dict[str, Any]]:
    """Rounds that end at 0, 10, 20, .. with these accuracies, on test and validation samples."""
    both = [{"accuracy": x, "val_accuracy": x} for x in accuracies]
    return [{"virtual_time": 10.0 * i, "bytes_down": size, "bytes_up": size, **x} for i, x in enumerate(both)]


def test_a_time_to_a_target_is_that_of_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    log = made(tmp_path, lines(0.9, 0.2, None, 0.6, 0.5))
    assert time_to(log, 0.6) == (30.0, 8.0)  # not the initial model's; 2 MB a line
    assert time_to(log, 0.7) == (math.inf, math.inf)
    assert time_to(made(tmp_path, lines(0.1, 0.8), "failed"), 0.6) == (math.inf, math.inf)
    assert at_end(log.rounds, "accuracy") == pytest.approx(0.5)  # after 80 % of the time: 32 of 40
    assert at_end(made(tmp_path, lines(0.1, None)).rounds, "accuracy") != 0


def test_the_first_to_a_target_is_chosen_and_else_the_most_accurate(tmp_path: Path) -> None:
    study = replace(STUDY, arms=(ARM,))
    trials = dict(zip(ARM.candidates, (lines(0.1, 0.7, 0.8), lines(0.1, 0.8, 0.7), lines(0.1, 0.2, 0.85)), strict=True))
    [condition, *_] = study.conditions
    for candidate, rows in trials.items():
        made(study.place(tmp_path, condition, ARM, candidate) / "trial", rows)
    picks = [chosen(study, tmp_path, condition, ARM, target) for target in (0.7, 0.75, 0.83, 0.9)]
    assert picks == ["--server.lr 1", "--server.lr 2", "--server.lr 3", "--server.lr 3"]
    with pytest.raises(ValueError, match="the trial of sync --server.lr 1 has not been made"):
        chosen(study, tmp_path / "elsewhere", condition, ARM, 0.7)


def test_times_less_is_a_geometric_mean_over_the_seeds_of_both() -> None:
    """Ratios 2 and 8: 4, and exp(log 4 +- t(.975, 1) sd / sqrt 2), where sd / sqrt 2 is log 2."""
    base = pd.DataFrame({"seed": [0, 1], "virtual_time": [20.0, 40.0]})
    runs = pd.DataFrame({"seed": [1, 0], "virtual_time": [5.0, 10.0]})
    wide = 2 ** stats.t.ppf(0.975, 1)
    assert times_less(base, runs) == f"4.00 ({4 / wide:.2f} to {4 * wide:.2f})"
    assert times_less(base, runs.replace(5.0, math.inf)) == "- (1 of 2 seeds reach it in both)"
    assert over(pd.Series([1.0, 3.0])) == "2 +- 13" and over(pd.Series([1.0, math.inf])) == "-"


def test_the_accuracy_of_classes_apart() -> None:
    rounds = pd.DataFrame({"class_accuracy": [[0.2, 0.4, 0.9], None, [0.5, None, 1.0]]})
    assert of_classes(rounds, (1, 2), True).tolist()[::2] == pytest.approx([0.65, 1.0])
    assert of_classes(rounds, (1, 2), False).tolist()[::2] == pytest.approx([0.2, 0.5])
    assert np.isnan(of_classes(rounds, (1, 2), True)[1])


def test_every_arm_of_a_study_has_as_many_trials() -> None:
    assert [len(arm.candidates) for arm in STUDY.arms] == [8] * 4
    assert [len(arm.candidates) for arm in CIFAR.arms] == [6] * 4


def test_every_call_of_the_study_on_cifar10_is_a_config() -> None:
    """Its flags are accepted, and as many clients are at work with each arm."""
    for condition, arm in CIFAR.cells():
        for candidate in arm.candidates[::5]:
            [config] = parse([*CIFAR.words(condition, arm, candidate, []), "--quiet"]).configs
            asked = asked_clients(config, 100) if config.cohort else config.concurrency
            assert asked == 20 and config.profile.name == "lognormal"


def test_a_study_is_made_once_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    out = ["--out", str(tmp_path / "runs"), "--seeds", "0"]
    assert command(TINY, run, None, out) == 0, capsys.readouterr().err
    page = capsys.readouterr().out
    assert "| sync | lr " in page and "To 2.00:" in page and "0 of 1" in page and "4 runs at commit" in page
    table = pd.read_csv(tmp_path / "tiny.csv")
    assert len(table) == 4 and set(table["status"]) == {"completed"} and table["slow_share"].between(0, 1).all()
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert command(TINY, lambda words: 99, None, out) == 0  # nothing is run again
    assert command(TINY, lambda words: 99, None, [*out, "--rounds", "3"]) == 2
    assert "was made with 1; delete it" in capsys.readouterr().err
