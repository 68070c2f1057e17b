"""``--keep_best``, ``log.best()``, ``log.partition``: one run, and what it is refused for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.recipe_files import make
from experiments.run import from_arrays, main, run
from experiments.runs.records import partition_record
from experiments.runs.records.partition_record import clients_of
from fl_sim import Callback, ConfigError, Run, load, tree


class Worsens(Callback):
    """Clients climb from round 3 on, so that an earlier round is the best; ``breaks``: as Ctrl-C does, in round 4."""

    def __init__(self, breaks: bool = False) -> None:
        self.breaks = breaks

    def on_round_start(self, run: Run) -> None:
        run.train_config["local.lr"] = 0.5 if run.round < 3 else -3.0
        if self.breaks and run.round == 4:
            raise KeyboardInterrupt


def settings(out: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 3))
    task = from_arrays(x, np.where(x[:, 0] > 0, "yes", "no"))
    return {"task": task, "model": "lr", "clients": 3, "rounds": 4, "validation": 0.2, "keep_best": True, "out": out}


def test_the_best_model_by_the_validation_samples_is_kept(tmp_path: Path) -> None:
    outcome = run(callbacks=[Worsens()], **settings(tmp_path))
    rounds, best = outcome.log.rounds, outcome.summary["best_round"]
    assert (
        rounds["val_accuracy"].idxmax() == best < 4 and rounds["val_accuracy"].iloc[-1] < rounds["val_accuracy"][best]
    )
    assert tree.digest(outcome.log.best()) == rounds["digest"][best] != rounds["digest"].iloc[-1]
    assert outcome.summary["best_accuracy"] == rounds["accuracy"][best]
    assert outcome.log.schema == 2
    table = outcome.log.partition
    assert list(table) == ["no", "yes"] and table.index.tolist() == [0, 1, 2]
    assert table.to_numpy().sum() == outcome.log.rounds["examples"].iloc[1]
    # the first model is among those that a resumed run could go back to
    assert (outcome.log.path / "best").is_dir()


def test_without_the_setting_there_is_no_best_model_and_without_validation_it_is_refused(tmp_path: Path) -> None:
    outcome = run(**{**settings(tmp_path), "keep_best": False, "rounds": 1})
    assert outcome.summary["best_round"] is None
    with pytest.raises(ValueError, match=r"kept no best model; run with --keep_best"):
        outcome.log.best()
    (outcome.log.path / "checksums.json").unlink()
    (outcome.log.path / "partition.json").unlink()  # as in a run of before
    with pytest.raises(ValueError, match=r"has no partition.json"):
        _ = load(outcome.log.path).partition
    with pytest.raises(ConfigError, match=r"keep_best = true: .*validation = 0 keeps none; give a share"):
        make(**{**settings(tmp_path), "validation": 0.0})


def test_drift_is_refused_in_flowers_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", "flower", "--log_drift", "true"]) == 2
    assert "log_drift = true: clients' updates are added up where" in capsys.readouterr().err


def test_of_many_clients_a_keyed_choice_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_record, "MOST_CLIENTS", 5)
    some = clients_of(range(100, 200))
    assert len(some) == 5 == len(set(some)) and some == sorted(some) == clients_of(range(100, 200))
    assert set(some) <= set(range(100, 200)) and clients_of([3, 1]) == [3, 1]
