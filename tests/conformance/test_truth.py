"""No choice reads test data: wrong labels in it change what is reported, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.recipe_files import make
from experiments.run import run
from experiments.runs.data import data
from experiments.runs.setup import build
from fl_sim import from_arrays

DRAW = np.random.default_rng(0)
X, CLIENTS = DRAW.normal(size=(240, 5)), np.arange(240) % 12
Y = (X @ DRAW.normal(size=(5, 3))).argmax(1)
X_TEST, Y_TEST = X[:60] + 0.01, Y[:60]
SETTINGS: dict[str, Any] = {
    "partition": {"name": "natural", "held_out": 0.25},
    "model": "mlp",
    "rounds": 4,
    "cohort": 5,
    "holdout_clients": 3,
    "validation": 0.1,
    "target": 0.5,
    "standardize": True,
    "personalize_steps": 3,
    "personalize_every": 1,
    "local": {"batch_size": 4},
    "system": {"stragglers": 0.4},
}


def outcome(out: Path, strategy: str, y: np.ndarray, y_test: np.ndarray) -> Any:
    task = from_arrays(X, y, clients=CLIENTS, x_test=X_TEST, y_test=y_test, name="truth")
    return run(**SETTINGS, task=task, strategy=strategy, out=str(out))


def choices(result: Any) -> dict[str, Any]:
    """All that could depend on data: models, clients that trained or were dropped, the end of the run, its settings."""
    rows = result.log.clients[result.log.clients["phase"] == "train"]
    columns = ["round", "client", "status", "examples", "steps", "loss", "update_norm", "weight"]
    return {
        "digests": result.log.rounds["digest"].tolist(),
        "training": rows[columns].to_json(),
        "validation": result.log.rounds[["val_loss", "val_accuracy"]].to_json(),
        "personal": result.log.clients[result.log.clients["phase"] == "personal"][
            ["round", "client", "unseen", "steps", "held_out"]
        ].to_json(),
        **{
            k: result.summary[k]
            for k in ("digest", "status", "rounds", "stopped", "engine", "moved", "clients_failed", "val_accuracy")
        },
    }


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "maml", "perfedavg"])
def test_garbage_test_labels_change_no_choice(tmp_path: Path, strategy: str) -> None:
    honest = outcome(tmp_path, strategy, Y, Y_TEST)
    central = outcome(tmp_path, strategy, Y, (Y_TEST + 1) % 3)
    assert choices(central) == choices(honest) and central.summary["accuracy"] != honest.summary["accuracy"]

    task = from_arrays(X, Y, clients=CLIENTS, x_test=X_TEST, y_test=Y_TEST, name="truth")
    setup = build(make(**SETTINGS, task=task, strategy=strategy))
    part, order = setup.partition, data(setup.config)[0].train["x"]  # as stored: not yet standardised
    held = np.concatenate([part.client(c)[part.sizes(c)[0] :] for c in range(len(part))])
    rows = {
        tuple(x): i for i, x in enumerate(X.tolist())
    }  # the validation share was taken out before: find a sample by its x
    garbage = Y.copy()
    own = [rows[tuple(x)] for x in order[held].tolist()]
    garbage[own] = (garbage[own] + 1) % 3
    assert len(own) > 40
    spoilt = outcome(tmp_path, strategy, garbage, Y_TEST)
    assert choices(spoilt) == choices(honest)
    assert spoilt.summary["personal_accuracy"] != honest.summary["personal_accuracy"]
    assert spoilt.summary["unseen_accuracy"] != honest.summary["unseen_accuracy"]


def test_training_labels_do_change_the_choices(tmp_path: Path) -> None:
    """The test above is able to fail."""
    assert choices(outcome(tmp_path, "fedavg", (Y + 1) % 3, Y_TEST)) != choices(outcome(tmp_path, "fedavg", Y, Y_TEST))


@pytest.mark.parametrize("rule", ["target", "patience"])
def test_garbage_test_labels_end_no_run(tmp_path: Path, rule: str) -> None:
    """stop.target and stop.patience read the validation share; the test set only where stop.on says so."""
    stop = {"target": {"target": 0.6}, "patience": {"patience": 2}}[rule]
    base = {"model": "lr", "local": {"lr": 1.0}, "rounds": 12, "validation": 0.2, "clients": 4, "out": str(tmp_path)}
    ends: dict[tuple[str, int], Any] = {}
    for on in ("validation", "test"):
        for shift in (0, 1):
            task = from_arrays(X, Y, x_test=X_TEST, y_test=(Y_TEST + shift) % 3)
            result = run(task=task, stop={**stop, "on": on}, **base)
            ends[on, shift] = choices(result)
            assert (shift and on == "test") or result.summary["stopped"].startswith(f"stop.{rule} = ")
    assert ends["validation", 0] == ends["validation", 1]
    assert ends["test", 0]["digest"] != ends["test", 1]["digest"]
