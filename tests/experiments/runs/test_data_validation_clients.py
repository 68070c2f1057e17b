"""Validation clients never train, and are what a run's choices read: unseen clients decide nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.config.recipe_files import make
from experiments.config.stored import stored_config
from experiments.deploy.server_app import deployable
from experiments.run import Outcome, run
from experiments.runs.data import data
from experiments.runs.setup import build
from fl_sim import from_arrays, tree
from fl_sim.errors import ConfigError
from fl_sim.wire import records
from strategies.adaptive import Adaptive

X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
OWNER = np.repeat(np.arange(6), 10)
WORLD: dict[str, Any] = {"partition": "natural", "model": "lr"}
PERSONAL: dict[str, Any] = {"personalize_steps": 1, "personalize_every": 1, "partition.held_out": 0.4}


def task_of(flipped: Sequence[int] = ()) -> Any:
    """Six clients of ten samples; the labels of the clients ``flipped`` are wrong."""
    y = np.where(np.isin(OWNER, flipped), 1 - Y, Y)
    return from_arrays(X, y, clients=OWNER, x_test=X[:4], y_test=Y[:4])


def outcome(out: Path, flipped: Sequence[int] = (), **settings: Any) -> Outcome:
    found = run(
        **{**WORLD, "task": task_of(flipped), "engine": "vmap", "local.lr": 0.5, "quiet": True, **PERSONAL, **settings},
        out=out,
    )
    assert isinstance(found, Outcome)
    return found


def personal_rows(found: Outcome) -> list[dict[str, Any]]:
    lines = (Path(str(found.summary["run_dir"])) / "clients.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == "personal"]


def test_they_train_as_little_as_unseen_ones_and_are_reported_apart(tmp_path: Path) -> None:
    """With client 4 as a second unseen one the run is the same; its numbers are then among ``unseen_*``."""
    apart = outcome(tmp_path / "a", holdout_clients=1, validation_clients=1, rounds=2)
    among = outcome(tmp_path / "b", holdout_clients=2, rounds=2)
    assert apart.summary["digest"] == among.summary["digest"] and apart.log.rounds["clients"].iloc[-1] == 4
    whose = {row["client"]: (row["unseen"], row["validation"]) for row in personal_rows(apart)}
    assert whose == {**dict.fromkeys(range(4), (False, False)), 4: (None, True), 5: (True, False)}
    assert not any("validation" in row for row in personal_rows(among))
    last, both = apart.log.rounds.iloc[-1], among.log.rounds.iloc[-1]
    assert (last["val_unseen_clients"], last["unseen_clients"], both["unseen_clients"]) == (1, 1, 2)
    for name in ("accuracy", "loss"):
        own = {row["client"]: row[name] for row in personal_rows(apart) if row["round"] == 2}
        assert last[f"val_unseen_{name}"] == apart.summary[f"val_unseen_{name}"] == pytest.approx(own[4])
        assert last[f"unseen_{name}"] == pytest.approx(own[5])
        assert both[f"unseen_{name}"] == pytest.approx((own[4] + own[5]) / 2)


@pytest.mark.parametrize("rule", [{"stop.target": 0.9}, {"stop.patience": 2}])
def test_stop_rules_read_validation_clients_and_no_unseen_one(rule: dict[str, Any], tmp_path: Path) -> None:
    def ended(flipped: Sequence[int]) -> tuple[str, object]:
        settings = {"holdout_clients": 1, "validation_clients": 2, "rounds": 4, **rule}
        found = outcome(tmp_path / str(flipped), flipped, **settings)
        return str(found.summary["stopped"]), found.summary["digest"]

    right, wrong_unseen, wrong_validation = ended(()), ended([5]), ended([3, 4])
    assert right == wrong_unseen and right[0].startswith("stop.")
    if "stop.target" in rule:
        assert "val_unseen_accuracy" in right[0] and wrong_validation[0] == "None"
    else:
        assert "evaluations of the validation clients" in right[0]


def test_adaptive_reads_the_samples_that_they_hold_out() -> None:
    words = {**WORLD, "task": task_of(), "strategy": "adaptive", "holdout_clients": 1, "validation_clients": 2}
    setup = build(make(**words, **PERSONAL, dtype="float64"))
    rows = np.concatenate([setup.partition.client(c)[6:] for c in (3, 4)])
    model = tree.to(records.decode(setup.initial), torch.float64)
    model = {k: v + 0.1 * torch.arange(v.numel(), dtype=v.dtype).reshape(v.shape) for k, v in model.items()}
    weight, bias = model.values()
    scores = torch.from_numpy(X[rows]).double() @ weight.T + bias
    expected = float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(Y[rows])))
    assert isinstance(setup.strategy, Adaptive)
    assert setup.strategy.validated(model) == pytest.approx(expected, rel=1e-12)
    on_devices = make(strategy="adaptive", validation_clients=2, **PERSONAL)
    with pytest.raises(ConfigError, match="validation_clients = 2: strategy adaptive chooses by their samples"):
        deployable(on_devices)


def test_they_hold_out_what_unseen_ones_do_and_standardize_leaves_them_out() -> None:
    words = {**WORLD, "task": task_of(), "holdout_clients": 1, "validation_clients": 1, "personalize_steps": 1}
    _, _, partition = data(make(**words, **{"partition.unseen_held_out": 0.8}))
    assert [partition.sizes(c) for c in range(6)] == [(10, 0)] * 4 + [(2, 8)] * 2
    prepared, _, _ = data(make(**words, **{"partition.held_out": 0.2, "standardize": True}))
    trained = np.concatenate([data(make(**words, **{"partition.held_out": 0.2}))[2].client(c)[:8] for c in range(4)])
    assert torch.allclose(prepared.transform.mean.double(), torch.from_numpy(X[trained]).double().mean(0), atol=1e-6)


def test_what_cannot_be_told_apart_is_refused_by_name() -> None:
    base = {**WORLD, "task": task_of(), **PERSONAL, "validation_clients": 1}
    with pytest.raises(ConfigError, match="validation_clients = 1: clients of partition resample share samples"):
        data(make(**{**base, "partition": "resample", "clients": 4}))
    with pytest.raises(ConfigError, match="stop.patience = 2: with validation_clients = 1 reads val_unseen_accuracy"):
        make(**{**base, "personalize_every": 0, "stop.patience": 2})
    with pytest.raises(ConfigError, match="keep_best = true: with validation_clients = 1 reads val_unseen_accuracy"):
        make(**{**base, "personalize_every": 0, "keep_best": True})
    assert make(**base, keep_best=True).keep_best
    with pytest.raises(ConfigError, match="validation_clients = 2: with .* choose at most 1"):
        make(clients=5, holdout_clients=3, validation_clients=2)
    with pytest.raises(ConfigError, match="validation_clients = 1: personal evaluation reads them, and it is off"):
        make(clients=5, validation_clients=1)
    with pytest.raises(ConfigError, match="validation_clients = 2: task omniglot makes the samples .* apart"):
        make(task="omniglot", validation_clients=2)
    with pytest.raises(ConfigError, match="validation_clients = 5: .*these are all 6 clients"):
        data(make(**{**base, "validation_clients": 5, "holdout_clients": 1}))
    ones = from_arrays(X[:7], Y[:7], clients=np.array([0, 0, 1, 1, 2, 2, 3]), x_test=X[:4], y_test=Y[:4])
    with pytest.raises(ConfigError, match="validation_clients = 1: none of them holds out a sample"):
        data(make(**{**base, "task": ones}))


def test_a_stored_config_without_the_setting_has_none() -> None:
    whole = make(validation_clients=2, **PERSONAL).to_dict()
    older = {k: v for k, v in whole.items() if k != "validation_clients"}
    assert stored_config(whole).validation_clients == 2 and stored_config(older).validation_clients == 0
