"""Configs: defaults, ranges, refused values, and writing and reading TOML."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clients.tasks.synthetic import synthetic
from experiments.config import recipe_files
from experiments.config.choices import PACKAGES, offered
from experiments.config.expand import expand
from experiments.config.nesting import nested
from experiments.config.recipe_files import make
from experiments.config.stored import stored_config
from experiments.config.values import seeds
from experiments.runs.block_size import block_size
from fl_sim import Loss, from_arrays
from fl_sim.errors import ConfigError


def test_defaults_are_the_documented_ones() -> None:
    config = make()
    assert " ".join(getattr(config, kind).name for kind in PACKAGES) == "digits iid mlp fedavg none none equal"
    assert config.to_dict() == {
        "task": {"name": "digits"},
        "partition": {"name": "iid", "seed": 0, "held_out": 0.0, "feature_shift": 0.0},
        "model": {"name": "mlp", "hidden": 64, "projection": 0},
        "strategy": {"name": "fedavg"},
        "profile": {
            **{"name": "equal", "seed": 0, "per": "client", "sample": 0.0, "down": 0.0, "up": 0.0},
            **{"latency": 0.0, "vanish": 0.0, "on": 0.0, "off": 0.0},
        },
        "validation": 0.0,
        "clients": 0,
        "holdout_clients": 0,
        "validation_clients": 0,
        "cohort": 0,
        "rounds": 10,
        "local": {
            **{"epochs": 1, "epochs_of": "", "steps": 0, "batch_size": 32, "last_batch": "keep", "optimizer": "sgd"},
            **{"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "lr_schedule": "constant"},
        },
        "server": {"lr": 1.0},
        "system": {"stragglers": 0.0, "max_examples": 1e9, "deadline": 0.0, "over_select": 1.0},
        "augment": False,
        "standardize": False,
        "standardize_on": "train",
        "set_metrics": "",
        **{"evaluate_every": 1, "log_drift": False, "keep_best": False},
        "personalize_steps": 0,
        "personalize_lr": 0.0,
        "personalize_optimizer": "sgd",
        "personalize_queries": "together",
        "personalize_batch_size": 0,
        "personalize_clients": 100,
        "personalize_every": 0,
        "engine": "auto",
        "block_size": 0,
        "chunk": 0,
        "threads": 1,
        "dtype": "float32",
        "precision": "full",
        "device": "cpu",
        "seed": 0,
        "evaluate_train": False,
        "out": "runs",
        "failures": "raise",
        "client_timeout": 0.0,
        "checkpoint_every": 0,
        "checkpoint_keep": 2,
        "schedule_rounds": 0,
        "stop": {"target": 0.0, "patience": 0, "virtual_time": 0.0, "on": "validation"},
        "time_limit": 0.0,
        "digest_every": 1,
        "fork": "",
    }
    assert config.num_clients == 10


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in PACKAGES for name in offered(kind)])
def test_toml_gives_the_same_config_back(kind: str, name: str, tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "rounds": 7,
        "seed": 3,
        "target": 0.5,
        "out": 'a "b" \\c',
        "weighting": "uniform",
        "server.lr": 1e-5,
        "partition.held_out": 0.1,
    }
    for key in getattr(offered(kind)[name], "refuses", ()):
        odd.pop(key, None)
    odd |= {"attack.share": 0.2} if kind == "attack" and name != "none" else {}
    odd |= {"validation": 0.1} if getattr(offered(kind)[name], "needs_validation", False) else {}
    config = make(**{kind: name, **odd})
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert make(str(path)) == config
    assert stored_config(tomllib.loads(config.to_toml())) == config
    assert config.rounds == 7 and config.out == 'a "b" \\c' and getattr(config, kind).name == name


@pytest.mark.parametrize("recipe", recipe_files.names())
def test_every_recipe_is_a_valid_plan_and_says_what_it_is(recipe: str) -> None:
    assert expand(recipe_files.read(recipe))
    assert recipe_files.title(recipe)


@pytest.mark.parametrize(
    "key, value, right",
    [
        ("rounds", 0, "greater than or equal to 1"),
        ("rounds", "5", "whole number"),
        ("rounds", 2.5, "whole number"),
        ("rounds", True, "whole number"),
        ("local.lr", -0.1, "greater than or equal to 0"),
        ("local.lr", float("nan"), "finite"),
        ("local.lr", float("inf"), "finite"),
        ("target", float("inf"), "finite"),
        ("local.momentum", 1.0, "less than 1"),
        ("server.lr", 0, "greater than 0"),
        ("validation", 1.0, "less than 1"),
        ("partition.held_out", 1.0, "less than 1"),
        ("partition.seed", -1, "greater than or equal to 0"),
        ("system.stragglers", -0.5, "greater than or equal to 0"),
        ("local.optimizer", "sgdd", "did you mean 'sgd'"),
        ("engine", "vmapp", "did you mean 'vmap'"),
        ("dtype", "float16", "'float32' or 'float64'"),
        ("weighting", "example", "did you mean 'examples'"),
        ("device", "gpu", "cuda:N"),
        ("failures", "tolerate:1.5", "share from 0 to 1"),
        ("failures", "ignore", "tolerate:0.2"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**63, "less than"),
        ("augment", 1, "boolean"),
        ("task.name", "digit", "did you mean 'digits'"),
        ("strategy.name", 3, "package.module:Name"),
        ("rouns", 3, "did you mean 'rounds'"),
        ("lr", 3, "did you mean 'local.lr'"),
        ("local.epoch", 3, "did you mean 'local.epochs'"),
        ("strategy.mu", 0.1, "fedavg takes no such parameter"),
        ("partition.alpha", 0.1, "it takes seed, held_out"),
        ("task.clients", 5, "takes no such parameter"),
        ("local", 5, "table"),
    ],
)
def test_refusals_name_key_value_and_what_is_right(key: str, value: Any, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**{key: value})
    assert str(caught.value).startswith(f"{key} = {value!r}: ")
    assert right in str(caught.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"cohort": 11}, "cohort = 11: only 10 clients train"),
        ({"clients": 20, "holdout_clients": 5, "cohort": 16}, "cohort = 16: only 15 clients train"),
        ({"clients": 5, "holdout_clients": 5}, "holdout_clients = 5: of 5 clients"),
        ({"task": "synthetic", "cohort": 31}, "cohort = 31: only 30 clients train"),
        ({"personalize_steps": 1}, "personalize_steps = 1: .*partition.held_out = 0"),
        ({"local": {"epochs": 1, "steps": 1}}, "local.epochs = 1, local.steps = 1: both"),
        ({"strategy": "fedavg,fedprox"}, "several runs where one is wanted"),
        ({"seed": [0, 1]}, "several runs where one is wanted"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_the_largest_possible_plan_is_accepted() -> None:
    plan: dict[str, Any] = {
        "clients": 20,
        "holdout_clients": 5,
        "cohort": 15,
        "personalize_steps": 1,
        "partition.held_out": 0.2,
    }
    assert make(**plan).num_clients == 20
    assert make(task="synthetic", cohort=30).num_clients == 30


def test_a_task_with_clients_of_its_own_is_partitioned_naturally() -> None:
    config = make(task="synthetic")
    assert (config.partition.name, config.clients, config.num_clients) == ("natural", 0, 30)
    assert make(task="synthetic", partition="iid").num_clients == 10
    assert make(partition="natural").num_clients is None  # only the data can tell


def test_a_task_may_say_which_model_suits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthetic.__dict__, "default_model", "lr")
    assert make(task="synthetic").model.name == "lr"
    assert make(task="synthetic", model="mlp").model.name == "mlp"


def test_parameters_reach_the_strategies_that_take_them_and_others_keep_their_defaults() -> None:
    both = expand(nested({"strategy": {"name": ["fedprox", "fedavg", "maml"], "inner_lr": 0.5}, "seed": "0..1"}))
    assert [(c.strategy.name, c.seed) for c in both] == [
        (name, seed) for name in ("fedprox", "fedavg", "maml") for seed in (0, 1)
    ]
    assert both[0].strategy.params == {"mu": 0.01} and both[2].strategy.params == {}
    assert both[4].strategy.params == {
        "inner_lr": 0.5,
        "inner_steps": 1,
        "order": 1,
        "optimizer": "sgd",
        "outer_lr": 0.1,
        **{"anneal": "constant", "support_size": 0, "query_size": 0},
    }


def test_what_a_strategy_refuses_is_an_error_alone_and_dropped_among_others() -> None:
    with pytest.raises(ConfigError, match="local.epochs = 3: means nothing to maml"):
        make(strategy="maml", local={"epochs": 3})
    fedavg, maml = expand(nested({"strategy": "fedavg,maml", "local.epochs": 3}))
    assert (fedavg.local.epochs, maml.local.epochs) == (3, 1)
    assert "epochs" not in maml.to_dict()["local"] and "steps" not in maml.to_dict()["local"]
    assert stored_config(tomllib.loads(maml.to_toml())) == maml


@pytest.mark.parametrize(
    "value, expected", [(3, [3]), ([0, 2], [0, 2]), ("0,2", [0, 2]), ("1..3", [1, 2, 3]), ("0..1, 7", [0, 1, 7])]
)
def test_seeds(value: Any, expected: list[int]) -> None:
    assert seeds(value) == expected


@pytest.mark.parametrize("value", ["x", "", "3..1", "1..", "-1", "1.5", 1.5, True, [], [0, "x"]])
def test_no_seeds(value: Any) -> None:
    with pytest.raises(ConfigError, match="seed = "):
        seeds(value)


def test_a_recipe_file_is_checked_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    for text, message in [
        ("rouns = 5", "rouns = 5: unknown key .did you mean 'rounds'"),
        ("[strategy]\nname = 'fedavg'\nmu = 1.0", "strategy.mu = 1.0"),
        ("[strategy]\nname = 'maml'\n[local]\nsteps = 2", "local.steps = 2: means nothing to maml"),
        ("[local]\nlr = nan", "local.lr = nan: must be a finite number"),
        ("rounds = ", "Invalid value"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"bad.toml: .*{message}"):
            make(str(path), strategy="fedprox")
    with pytest.raises(ConfigError, match="no such file"):
        make(str(tmp_path / "none.toml"))


def test_another_name_leaves_the_recipes_parameters_of_the_old_one_behind(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[strategy]\nname = 'fedprox'\nmu = 1.0\n[partition]\nname = 'dirichlet'\nalpha = 0.1\nheld_out = 0.2\n"
    )
    config = make(str(path), strategy="fedavg", partition="quantity")
    assert config.strategy.params == {}
    shares = {"held_out": 0.2, "unseen_held_out": None, "feature_shift": 0.0}
    assert config.partition.params == {"alpha": 0.1, "min_samples": 1, "seed": 0, **shares}
    with pytest.raises(ConfigError, match="strategy.mu = 2.0: strategy fedavg takes no such parameter"):
        make(str(path), strategy={"name": "fedavg", "mu": 2.0})


def test_of_epochs_and_steps_the_setting_on_top_rules(tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text("[local]\nsteps = 5\n")
    assert make(str(path)).local.steps == 5
    over = make(str(path), local={"epochs": 2}).local
    assert (over.epochs, over.steps) == (2, 0)
    path.write_text("[local]\nepochs = 4\nsteps = 5\n")
    with pytest.raises(ConfigError, match=r"local\.epochs = 4, local\.steps = 5: both at once"):
        make(str(path))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_bfloat16_rounds_and_trains(engine: str, tmp_path: Path) -> None:
    from experiments.run import run

    common: dict[str, Any] = {"clients": 8, "rounds": 3, "engine": engine, "out": str(tmp_path)}
    full, rounded = run(**common), run(**common, precision="bf16")
    assert full.summary["digest"] != rounded.summary["digest"] and rounded.model["1.weight"].dtype == torch.float32
    assert abs(full.summary["accuracy"] - rounded.summary["accuracy"]) < 0.1


@pytest.mark.parametrize("settings", [{"precision": "tf32"}, {"precision": "bf16", "dtype": "float64"}])
def test_a_precision_without_meaning_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="precision = .*does nothing here"):
        make(**settings)


def test_a_block_size_left_open_gives_the_loop_sixteen_blocks_and_vmap_as_many_clients_as_are_cheap() -> None:
    task = from_arrays(torch.zeros(4, 3), torch.arange(4) % 2, clients=[0, 0, 1, 1])
    small, large = (Loss(nn.Linear(3, width), task, torch.float32, "cpu") for width in (2, 2**18))
    assert [block_size("loop", cohort, small) for cohort in (1, 10, 50, 100, 256, 1000)] == [1, 1, 4, 7, 16, 16]
    assert [block_size("vmap", cohort, small) for cohort in (1, 50, 100, 1000)] == [16, 16, 25, 64]
    assert [block_size("vmap", cohort, large) for cohort in (1, 100, 1000)] == [16, 16, 16]  # 4 MiB of weights a client
