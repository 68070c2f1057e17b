"""The study of writers: equal budgets, choices by validation clients alone, no run made twice, the page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.studies import study_runs
from experiments.studies.meta import writers as study
from experiments.studies.meta import writers_page
from experiments.studies.meta.writers_arms import ARMS, TOTAL, TRIALS
from fl_sim.logs.reader import load

TINY = [
    *("--task", "digits", "--clients", "16", "--partition.unseen_held_out", "0.5", "--model", "lr"),
    *("--cohort", "4", "--local.batch_size", "10", "--engine", "vmap"),
]


def test_every_trial_of_an_arm_has_the_same_gradient_evaluations() -> None:
    a_step = {"reptile": 1, "ditto": 2, "fedrep": 2, "pfedme": 5, "perfedavg fo": 2, "fedavg": 1}
    for arm in ARMS:
        trials = [dict(zip(own[::2], own[1::2], strict=True)) for own in arm.trials()]
        assert len(trials) == TRIALS == len({repr(own) for own in trials})
        for own in trials if arm.name != "local-only" else ():
            if arm.name == "maml":
                passes = int(own["--strategy.order"]) * (int(own["--strategy.inner_steps"]) + 1)
            else:
                steps = 4 if arm.name in ("perfedavg hf", "perfedavg exact") else a_step.get(arm.name, 1)
                passes = int(own["--local.steps"]) * steps
            assert int(own["--rounds"]) * passes == TOTAL


def test_the_interval_keeps_the_clients_of_a_writer_together() -> None:
    """Two clients a writer, 0 and 1 in each: every writer's mean is .5, and a bootstrap over writers has no spread."""
    ids = np.arange(1000, 1108)
    assert writers_page.interval(pd.Series(np.arange(108) % 2, index=ids)) == (0.5, 0.5, 0.5)
    mean, low, high = writers_page.interval(pd.Series(np.arange(108) // 54, index=ids))
    spread = 1.96 * 0.5 / np.sqrt(54)  # of the mean of 54 writers, half of them 0 and half 1
    assert (
        mean == 0.5 and low == pytest.approx(0.5 - spread, abs=0.02) and high == pytest.approx(0.5 + spread, abs=0.02)
    )


def test_the_command_chooses_by_validation_clients_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [replace(arm, work=arm.work[:1], choices=[["--local.lr 0.1", "--local.lr 0.000001"]]) for arm in ARMS[:1]]
    tuned = ["--personalize_steps 2 --personalize_lr 0.1"]
    few += [replace(ARMS[1], work=ARMS[1].work[:1], choices=[["--local.lr 0.03"], tuned])]
    monkeypatch.setattr(study, "ARMS", few)
    monkeypatch.setattr(study, "COMMON", TINY)
    monkeypatch.setattr(study, "CONDITIONS", {"tiny": "--holdout_clients 4 --validation_clients 4"})
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    real, calls = study.run, list[Sequence[str]]()

    def counted(words: Any) -> int:
        calls.append(words)
        return real(words)

    monkeypatch.setattr(study, "run", counted)
    words = ["--out", str(tmp_path / "runs"), "--seeds", "0", "--arms", "fedavg,fedavg + fine-tuning", "--rounds", "2"]
    assert study.main(words) == 0 and len(calls) == 5 and study.main(words) == 0 and len(calls) == 5
    folder = study.place(tmp_path / "runs", "tiny", few[0])
    found = [load(next((folder / f"trial-{n:02}").glob("*/"))) for n in range(2)]
    by = [log.rounds["val_unseen_accuracy_before"].iloc[-1] for log in found]
    chosen = load(next((folder / "seed-0").glob("*/"))).config["local"]["lr"]
    assert (
        chosen == 0.1 == found[by.index(max(by))].config["local"]["lr"]
        and min(by) < max(by)
        and not list(folder.glob("*/*/checkpoints"))
    )
    page, runs = (tmp_path / "writers.md").read_text(), pd.read_csv(tmp_path / "writers.csv")
    clients = pd.read_csv(tmp_path / "writers-clients.csv")
    assert runs["arm"].tolist() == [arm.name for arm in few] and len(clients) == 8
    own = clients[clients["arm"] == "fedavg"]["accuracy_before"].mean()
    assert own == pytest.approx(runs["unseen_accuracy_before"][0], abs=1e-4) and f"| fedavg | {own:.3f} (" in page
    assert "validation writers" in page and "## Writers tiny" in page


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--out", str(tmp_path), "--arms", "fedsgd"]) == 2
    assert "arms = 'fedsgd': must be of fedavg, " in capsys.readouterr().err
    assert study.main(["--out", str(tmp_path), "--seeds", ""]) == 2
    assert "holds no run of this study" in capsys.readouterr().err
