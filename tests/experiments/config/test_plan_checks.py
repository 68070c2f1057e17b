"""A setting that does nothing where it stands is refused where a call or a recipe says it, and left out elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from experiments.config.command_line import parse
from experiments.config.nesting import Settings
from experiments.config.recipe_files import configs, make
from experiments.config.stored import stored_config
from experiments.deploy.server_app import parse_configs
from experiments.runs.plan import check_used
from experiments.runs.setup import build
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays
from strategies.perfedavg import PerFedAvg

FLOWER = "flwr.serverapp.strategy:FedAdam"
UNSEEN = {"validation_clients": 1, "personalize_steps": 1, "personalize_every": 1, "partition.unseen_held_out": 0.5}
"""Validation clients, which are evaluated after each round; or after each server step."""


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"personalize_lr": 0.2}, "personalize_lr = 0.2: does nothing here: acts in personal evaluation"),
        ({"personalize_optimizer": "adam"}, "personalize_optimizer = 'adam': does nothing"),
        ({"personalize_queries": "alone"}, "personalize_queries = 'alone'"),
        ({"personalize_batch_size": 4}, "personalize_batch_size = 4"),
        ({"personalize_clients": 4}, "personalize_clients = 4"),
        ({"personalize_every": 4}, "personalize_every = 4"),
        ({"engine": "loop", "chunk": 2}, "chunk = 2: does nothing here: acts in the engine vmap"),
        ({"engine": "flower", "chunk": 2}, "chunk = 2"),
        ({"engine": "ray", "ray.engine": "loop", "chunk": 2}, "chunk = 2"),
        ({"standardize_on": "all"}, "standardize_on = 'all': does nothing here: acts in standardize"),
        ({"data_dir": "here"}, "data_dir = 'here': does nothing here: task digits reads no folder"),
        ({"local.batch_size": 0, "local.last_batch": "drop"}, "local.last_batch = 'drop'"),
        ({"schedule_rounds": 9}, "schedule_rounds = 9: does nothing here: nothing in this run depends on"),
        ({"strategy": "maml", "schedule_rounds": 9}, "schedule_rounds = 9"),
        ({"strategy": "perfedavg", "strategy.delta": 0.1}, "strategy.delta = 0.1: .*acts with strategy.order hf"),
        (
            {"local.epochs_of": "1,2", "local.epochs": 3},
            "local.epochs = 3: .*local.epochs_of gives each client its own",
        ),
        ({"local.epochs_of": "1,2", "local.steps": 3}, "local.epochs_of = '1,2': .*local.steps = 3 counts steps"),
        ({"local.epochs_of": "1,0"}, "local.epochs_of = '1,0': must be the epochs of single clients"),
        ({"local.epochs_of": "1, 2"}, "local.epochs_of = '1, 2': must be the epochs"),
        ({"local.epochs_of": "1,2,3", "clients": 2}, "local.epochs_of = '1,2,3': 3 numbers for 2 clients"),
        ({"local.epochs_of": "1,2", "system.stragglers": 0.5}, "local.epochs_of = '1,2', system.stragglers = 0.5: "),
        ({"stop.on": "test"}, "stop.on = 'test': does nothing here: says what stop.target and stop.patience read"),
        (
            {"strategy": "perfedavg", "strategy.hf_step": "fixed"},
            "strategy.hf_step = 'fixed': .*strategy.order hf",
        ),
        (
            {"strategy": "perfedavg", "strategy.order": "hf", "strategy.delta": 0.1},
            "strategy.delta = 0.1: .*acts with strategy.hf_step fixed",
        ),
        ({"strategy": PerFedAvg(delta=0.1)}, "strategy.delta = 0.1: .*acts with strategy.order hf"),
        ({"strategy": PerFedAvg(order="hf", delta=0.1)}, "strategy.delta = 0.1: .*acts with strategy.hf_step fixed"),
        ({"strategy": "maml", "strategy.support_size": 3, "schedule_rounds": 9}, "schedule_rounds = 9"),
        (
            {"partition.unseen_held_out": 0.8, "personalize_steps": 1},
            r"partition.unseen_held_out = 0.8: .*this run has none \(holdout_clients = 0\); set --holdout_clients too",
        ),
        (
            {"partition.unseen_held_out": 0.8, "holdout_clients": 2},
            r"partition.unseen_held_out = 0.8: .*this run is off \(personalize_steps = 0\)",
        ),
        ({"strategy": "fedasync", "stop.patience": 2, "stop.on": "test", **UNSEEN}, "stop.patience = 2: reads evaluat"),
        ({"strategy": "fedasync", "keep_best": True, "validation": 0.1}, "keep_best = true: reads evaluations"),
        ({"ray": {"num_workers": 2}}, "ray.num_workers = 2: does nothing here: the engine is auto; add --engine ray"),
        (
            {"local": {"optimizer": "adam", "momentum": 0.5}},
            "local.momentum = 0.5: does nothing here: local.optimizer is",
        ),
        ({"precision": "tf32"}, "precision = 'tf32': does nothing here: device is cpu, dtype is float32"),
        ({"precision": "bf16", "dtype": "float64"}, "precision = 'bf16'"),
        ({"strategy": FLOWER, "strategy.eta_l": 0.2}, "strategy.eta_l = 0.2: .*Flower only stores it"),
    ],
)
def test_what_does_nothing_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**settings)
    path = tmp_path / "recipe.toml"
    table = {k: v for k, v in settings.items() if "." not in k and k != "strategy"}
    if len(table) == len(settings):
        path.write_text(tomli_w.dumps(table))
        with pytest.raises(ConfigError, match=message):
            make(str(path), out="elsewhere")


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "vmap", "chunk": 2},
        {"task": "images", "data_dir": "here"},
        {"schedule_rounds": 9, "local.lr_schedule": "cosine"},
        {"schedule_rounds": 9, "strategy": "reptile", "strategy.anneal": "linear"},
        {"schedule_rounds": 9, "strategy": "maml", "strategy.anneal": "linear"},
        {"personalize_steps": 1, "holdout_clients": 2, "partition.unseen_held_out": 0.5},
        {"schedule_rounds": 9, "strategy": "tests.conformance.stateful:Remembers"},
        {"strategy": "perfedavg", "strategy.delta": 0.1, "strategy.order": "hf", "strategy.hf_step": "fixed"},
        {"personalize_steps": 1, "personalize_every": 2, "partition.held_out": 0.1},
        {"strategy": "fedasync", "keep_best": True, **UNSEEN},
        {"strategy": "fedasync", "stop.patience": 2, **UNSEEN},
    ],
)
def test_what_acts_is_accepted_and_stored(settings: dict[str, Any]) -> None:
    config = make(**settings)
    assert stored_config(config.to_dict()) == config


def test_what_a_flag_switches_off_leaves_the_recipe_s_settings_behind() -> None:
    [config, *_] = parse(["quickstart", "--personalize_steps", "0"]).configs
    assert config.personalize_lr == 0.0
    with pytest.raises(ConfigError, match="personalize_lr = 0.2: does nothing"):
        parse(["quickstart", "--personalize_steps", "0", "--personalize_lr", "0.2"])
    words = "--strategy maml,perfedavg --strategy.order 1 --seed 1 --strategy.perfedavg.order fo"
    both = parse(words.split()).configs
    assert [c.strategy.params["order"] for c in both] == [1, "fo"]


@pytest.mark.parametrize(
    "recipe, over",
    [
        ({"engine": "ray", "ray": {"num_workers": 2}}, {"engine": "vmap"}),
        ({"local": {"momentum": 0.9}}, {"local": {"optimizer": "adam"}}),
        ({"precision": "bf16"}, {"dtype": "float64"}),
    ],
)
def test_what_a_call_makes_meaningless_is_left_out_of_its_recipe(recipe: Settings, over: Settings) -> None:
    """So a run on Ray is forked on vmap, though its folder says how many workers it had."""
    assert configs(recipe, over) == configs({}, over)
    with pytest.raises(ConfigError, match="does nothing here"):
        configs({}, {**recipe, **over, "local": {**recipe.get("local", {}), **over.get("local", {})}})


def test_a_stored_config_is_read_without_what_does_nothing() -> None:
    written = {**make().to_dict(), "engine": "loop", "chunk": 4, "personalize_lr": 0.3}
    assert stored_config(written) == make(engine="loop")


def test_a_deployment_is_on_the_loop() -> None:
    with pytest.raises(ConfigError, match="chunk = 2: does nothing here"):
        parse_configs(["digits-deploy", "--chunk", "2"])


def test_the_clients_of_flower_s_strategies_are_the_run_s_unless_they_are_given() -> None:
    """An earlier version stored the default of 1.0, which meant 0; today what is given is stored, also the default."""
    config = make(strategy=FLOWER)
    assert "fraction_evaluate" not in config.to_dict()["strategy"]
    given = make(strategy=FLOWER, **{"strategy.fraction_evaluate": 1.0})
    assert given.strategy.given == {"fraction_evaluate"} and stored_config(given.to_dict()).strategy.given >= {
        "fraction_evaluate"
    }
    old = {k: v for k, v in given.to_dict().items() if k != "personalize_optimizer"}
    assert "fraction_evaluate" not in stored_config(old).strategy.given


@pytest.mark.parametrize("rule", ["stop.target = 0.9", "stop.patience = 3"])
def test_a_rule_that_ends_a_run_reads_no_test_data_unless_it_says_so(rule: str) -> None:
    key, _, value = rule.partition(" = ")
    given = {key: float(value) if "." in value else int(value)}
    cure = r"give a share .--validation 0.1., or let test data choose the last round .--stop.on test."
    with pytest.raises(ConfigError, match=f"{rule}: reads the central validation samples, and validation = 0 .*{cure}"):
        make(**given)
    assert make(**given, validation=0.1).stop.on == "validation" and make(**given, **{"stop.on": "test"})
    whole = make(**given, **{"stop.on": "test"}).to_dict()
    older = {**whole, "stop": {k: v for k, v in whole["stop"].items() if k != "on"}}
    assert stored_config(older).stop.on == "test"  # what a run did before the setting existed
    assert stored_config({**older, "stop": {"target": 0.0, "patience": 0}}).stop.on == "validation"


def test_a_share_that_rounds_to_no_sample_ends_no_run_either(tmp_path: Path) -> None:
    task = from_arrays(np.eye(8, dtype=np.float32), np.arange(8) % 2)
    config = make(task=task, model="lr", clients=2, validation=0.01, **{"stop.target": 0.9})
    with pytest.raises(ConfigError, match="stop.target = 0.9: reads .*validation = 0.01 keeps none"):
        check_used(build(config))


def test_differences_of_gradients_in_bf16_are_refused_before_any_run() -> None:
    settings: dict[str, Any] = {"strategy": "perfedavg", "precision": "bf16"}
    with pytest.raises(ConfigError, match="precision = 'bf16': strategy.order hf takes a difference of two gradients"):
        make(**settings, **{"strategy.order": "hf"})
    with pytest.raises(ConfigError, match="precision = 'bf16'"):
        make(strategy=PerFedAvg(order="hf"), precision="bf16")
    assert make(**settings, **{"strategy.order": "exact"}).precision == "bf16"


@pytest.mark.parametrize(
    "strategy, key, value, why",
    [
        ("scaffold", "weighting", "examples", "the server's control variate is the plain mean of the clients'"),
        ("feddyn", "weighting", "examples", "the server's h is the plain mean of the clients' g"),
        ("scaffold", "local.lr", 0.0, "a control variate is a change divided by it"),
    ],
)
def test_settings_with_which_an_algorithm_is_wrong_are_refused(strategy: str, key: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = {value!r}: {why}.*; leave it out"):
        make(strategy=strategy, **{key: value})
    assert make(strategy=strategy, weighting="uniform").weighting == "uniform"
