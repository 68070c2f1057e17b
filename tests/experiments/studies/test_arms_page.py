"""A study of arms: trials, the chosen rate, seeds, the page; what is there is not run again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pytest

from experiments.run import main as run
from experiments.studies import study_runs
from experiments.studies.arms import Arm, Study, numbers
from experiments.studies.arms_page import command, over, verdicts
from experiments.studies.study_runs import Trials, at_best, chosen, scores
from fl_sim.logs.reader import RunLog

STUDY = Study(
    name="tiny",
    explanation="Two arms.",
    common=["--model", "lr", "--clients", "4", "--rounds", "2", "--validation", "0.2", "--engine", "loop"],
    conditions={"IID (x)": "--partition iid"},
    arms=[Arm("fedavg", "--strategy fedavg", "g"), Arm("fedprox", "--strategy fedprox --strategy.mu 1", "g")],
    baselines=("fedavg",),
    trials=Trials((1e30, 0.1), seed=9, column="val_accuracy"),  # the first rate diverges
    tuned="lr on validation",
    columns={"accuracy": "test accuracy", "loss": "test loss"},
    chance=0.1,
    also=["loss"],
)


def test_a_study_tunes_runs_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    words, calls = ["--out", str(tmp_path / "runs"), "--seeds", "0"], list[Sequence[str]]()

    def counted(flags: Sequence[str]) -> int:
        calls.append(flags)
        return run(flags)

    assert command(STUDY, counted, "", words) == 0
    assert len(calls) == 2 * (2 + 1)
    for seed in ("0", "9"):  # a seed is that of run and partition
        own = [call for call in calls if call[call.index("--seed") + 1] == seed]
        assert own and all(call[call.index("--partition.seed") + 1] == seed for call in own)
    place = tmp_path / "runs" / "IID-x" / "g" / "fedavg"
    found = scores(place, STUDY.trials)
    assert found[1e30] == -1 and found[0.1] > 0 and chosen(place, STUDY.trials) == 0.1
    rows = pd.read_csv(tmp_path / "tiny.csv")
    assert rows[["arm", "seed"]].to_numpy().tolist() == [["fedavg", 0], ["fedprox", 0]]
    assert set(rows["lr"]) == {0.1} and rows["digest"].nunique() == 2
    page = (tmp_path / "tiny.md").read_text(encoding="utf-8")
    mean = rows.groupby("arm")["accuracy"].mean()
    gap = f"{mean['fedprox'] - mean['fedavg']:+.3f}"
    loss = rows.groupby("arm")["loss"].mean()
    worse = f"{loss['fedprox'] - loss['fedavg']:+.3f}"
    assert f"| fedprox - fedavg, test loss | {worse} | " in page
    assert f"| fedprox - fedavg | {gap} | " in page and "1e+30: -1.000, 0.1: " in page and "Tuned: lr on val" in page
    assert (tmp_path / "tiny.png").stat().st_size > 1000

    calls.clear()
    assert command(STUDY, counted, "", words) == 0 and not calls
    assert command(replace(STUDY, arms=[]), counted, "", words) == 2  # no run
    assert command(STUDY, counted, "", [*words, "--rounds", "3"]) == 2 and not calls
    assert "rounds = 3: " in (said := capsys.readouterr().err) and "was made with 2; delete it, or give anoth" in said


def test_other_flags_replace_those_of_a_study_and_an_interruption_ends_it(tmp_path: Path) -> None:
    flags = STUDY.flags("IID (x)", STUDY.arms[0], ["--rounds", "7"])
    assert flags.count("--rounds") == 1 and flags[-2:] == ["--rounds", "7"] and "--model" in flags
    assert command(STUDY, lambda _: 130, "", ["--out", str(tmp_path)]) == 130


def test_a_failed_run_counts_as_chance_and_others_by_their_last_evaluations() -> None:
    values = {"round": [0, 1, 2, 3], "accuracy": [0.9, 0.2, 0.4, None], "loss": [1.0, 1.0, 2.0, 3.0]}
    rounds = pd.DataFrame({**values, **dict.fromkeys(("steps", "bytes_up", "bytes_down", "seconds"), 500_000)})
    for status, accuracy in (("completed", 0.3), ("failed", 0.1)):  # .2 and .4: round 0 is the initial model
        log = SimpleNamespace(rounds=rounds, config={"seed": 0, "local": {"lr": 0.1}}, summary={"status": status})
        found = numbers(STUDY, STUDY.arms[0], cast(RunLog, log))
        assert found["compared"] == found["accuracy"] == pytest.approx(accuracy) and found["mb"] == 4
        assert found["server_mb"] == 4  # no edges: all that clients send is the server's
    edged = SimpleNamespace(**{**vars(log), "rounds": rounds.assign(edge_bytes_up=250_000, edge_bytes_down=0)})
    assert (found := numbers(STUDY, STUDY.arms[0], cast(RunLog, edged)))["mb"] == 4 and found["server_mb"] == 1
    own = numbers(STUDY, replace(STUDY.arms[0], column="loss"), cast(RunLog, log))
    assert own["compared"] != own["compared"]  # NaN: a loss has no chance level


def test_curves_over_steps_are_those_of_one_client() -> None:
    rounds = pd.DataFrame({"round": [0, 1, 2], "steps": [0, 12, 8], "completed": [0, 4, 2]})
    assert over(rounds, "round").tolist() == [0, 1, 2] and over(rounds, "steps").tolist() == [0, 3, 7]


def test_a_run_is_reported_by_its_best_round_on_validation() -> None:
    rounds = pd.DataFrame(
        {"round": [0, 1, 2, 3], "val_accuracy": [0.9, 0.5, None, 0.6], "accuracy": [0.8, 0.4, 0.7, 0.3]}
    )
    log = cast(RunLog, SimpleNamespace(rounds=rounds))
    assert at_best(log, "val_accuracy", "accuracy") == 0.3  # round 0 is the initial model
    assert pd.isna(at_best(log, "val_loss", "accuracy"))
    assert over(pd.DataFrame({"bytes_up": [None, 1e6, 2e6]}), "mb_up").tolist() == [0, 1, 3]


def test_an_arm_may_have_so_much_less() -> None:
    study = replace(STUDY, margins={"fedprox": 0.02})
    for lost, verdict in ((0.01, "holds"), (0.05, "failed")):
        gaps = [lost, lost + 0.001, lost - 0.001]
        rows = [("fedavg", seed, 0.5) for seed in range(3)]
        rows += [("fedprox", seed, 0.5 - gap) for seed, gap in enumerate(gaps)]
        table = pd.DataFrame(rows, columns=["arm", "seed", "compared"])
        assert verdicts(study, table)[2].endswith(f"| {verdict} |")
        assert verdicts(STUDY, table) == []
