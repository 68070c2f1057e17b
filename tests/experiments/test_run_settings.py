"""``run(...)`` takes settings as notebooks have them: paths, numbers of NumPy, lists of seeds, files of Windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.config.recipe_files import make, make_each, read
from experiments.run import Outcome, from_arrays, run
from fl_sim import load
from fl_sim.errors import ConfigError
from strategies.fedprox import FedProx

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
TASK = from_arrays(X, (X[:, 0] > 0).astype(int))
SMALL: dict[str, Any] = {"task": TASK, "model": "lr", "clients": 4, "rounds": 1}


def test_paths_and_numbers_of_numpy_are_the_settings_that_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[local]\nmomentum = 0.5\n", encoding="utf-8-sig")
    theirs = run(
        **{**SMALL, "clients": np.int64(4), "rounds": np.array(1), "local.batch_size": np.uint8(8)},
        recipe=tmp_path / "mine.toml",
        strategy=FedProx(mu=np.float32(0.25)),
        out=tmp_path / "theirs",
        local={"lr": np.float32(0.1)},
        seed=np.int64(3),
        augment=np.bool_(False),
        engine=np.str_("loop"),
        validation=torch.tensor(0.0),
    )
    ours = run(
        **SMALL,
        strategy=FedProx(mu=0.25),
        out=str(tmp_path / "ours"),
        local={"lr": 0.10000000149011612, "batch_size": 8, "momentum": 0.5},
        seed=3,
        engine="loop",
    )
    assert isinstance(theirs, Outcome) and theirs.summary["digest"] == ours.summary["digest"]
    assert {**theirs.log.config, "out": ""} == {**ours.log.config, "out": ""}


@pytest.mark.parametrize("seeds", [[0, 1], (0, 1), range(2), np.arange(2), torch.arange(2), [np.int64(0), 1], "0..1"])
def test_every_kind_of_list_of_seeds_is_one_config_a_seed(seeds: Any) -> None:
    assert [config.seed for config in make_each(strategy="fedprox", seed=seeds)] == [0, 1]


def test_a_list_of_seeds_gives_a_list_of_outcomes(tmp_path: Path) -> None:
    outcomes = run(**SMALL, seed=[5, 6], out=tmp_path)
    assert [outcome.log.config["seed"] for outcome in outcomes] == [5, 6]
    assert outcomes[1].summary["digest"] == run(**SMALL, seed=6, out=tmp_path).summary["digest"]
    assert [len(run(**SMALL, seed=[5], out=tmp_path)), len(list(tmp_path.iterdir()))] == [1, 4]


def test_other_lists_are_refused_before_any_work(tmp_path: Path) -> None:
    for settings, message in [
        ({"seed": [0, 1], "strategy": "fedavg,fedprox"}, "several runs where one is wanted"),
        ({"seed": [0, 0]}, "names a seed twice"),
        ({"seed": []}, "names no seed"),
        ({"rounds": np.float64(2.5)}, "rounds = 2.5: must be a whole number"),
        ({"rounds": np.bool_(True)}, "rounds = True: must be a whole number"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(**{**SMALL, **settings, "out": tmp_path / "out"})
    assert not (tmp_path / "out").exists()


def test_a_recipe_and_a_stored_config_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("rounds = 7\n", encoding="utf-8-sig")
    assert make(str(tmp_path / "mine.toml")).rounds == 7
    (tmp_path / "mine.toml").write_text("rounds = 7\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="mine.toml: it is encoded as UTF-16"):
        read(str(tmp_path / "mine.toml"))
    (tmp_path / "config.toml").write_text("rounds = 7\n", encoding="utf-8-sig")
    assert load(tmp_path).config == {"rounds": 7}


def test_callbacks_and_names_of_a_wrong_type_are_named() -> None:
    with pytest.raises(ConfigError, match="^callbacks = 3: must be a list"):
        run(**SMALL, callbacks=3)
    with pytest.raises(ValueError, match="^from_arrays: name = 3: must be text"):
        from_arrays(X, (X[:, 0] > 0).astype(int), name=3)
