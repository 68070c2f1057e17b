"""Every setting acts or is refused: in a new run, a fork, a resume and a deployment.

A setting that is added to the schema fails these tests until it has an entry in SETTINGS.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.plan_checks import values
from experiments.config.recipe_files import make
from experiments.config.schema import Config, known_keys
from experiments.deploy.server_app import deployable, device_settings
from experiments.run import run
from experiments.runs.resume import FREE, check_unchanged, free
from experiments.runs.setup import Setup, build, messages
from fl_sim import from_arrays
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError, RoundFailed
from tests.conformance.stateful import Stumbles

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=GENERATOR)
TASK = from_arrays(X, (X.sum(1) > 0).long(), clients=torch.arange(40) % 7 % 4, name="tiny")
OTHER = replace(TASK, name="other")
PERSONAL: dict[str, Any] = {"personalize_steps": 2, "partition.held_out": 0.4}
KEPT: dict[str, Any] = {"rounds": 3, "checkpoint_every": 1, "checkpoint_keep": 0}
REFUSED = "refused"
"""Stands for a setting that this world refuses by name."""

# Each entry: another value, settings that both runs have, and REFUSED or how the change shows where no log does.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "task.name": (OTHER,),
    "task.class_axis": (-1, {}, "task"),
    "task.ignore_index": (0,),
    "partition.name": ("iid",),
    "partition.seed": (3, {"partition.held_out": 0.4}),
    "partition.held_out": (0.4,),
    "model.name": (lambda inputs, outputs: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, outputs)),),
    "strategy.name": ("reptile",),
    "data_dir": ("elsewhere", {}, REFUSED),
    "validation": (0.2,),
    "clients": (2,),
    "holdout_clients": (1,),
    "cohort": (2,),
    "rounds": (2,),
    "local.epochs": (2,),
    "local.steps": (3,),
    "local.batch_size": (3,),
    "local.last_batch": ("drop", {"local.batch_size": 4}),
    "local.optimizer": ("adam",),
    "local.lr": (0.3,),
    "local.momentum": (0.5, {"local.epochs": 2}),
    "local.weight_decay": (0.5,),
    "local.clip_norm": (0.01,),
    "local.lr_schedule": ("cosine", {"rounds": 2}),
    "server.lr": (0.5,),
    "system.stragglers": (0.5,),
    "system.max_examples": (2.0, {}, REFUSED),
    "weighting": ("uniform",),
    "augment": (True, {}, REFUSED),
    "standardize": (True,),
    "set_metrics": ("class_accuracy",),
    "evaluate_every": (2, {"rounds": 3}),
    "personalize_steps": (2, {"partition.held_out": 0.4}),
    "personalize_lr": (0.4, PERSONAL),
    "personalize_optimizer": ("adam", PERSONAL),
    "personalize_batch_size": (1, PERSONAL),
    "personalize_clients": (1, PERSONAL),
    "personalize_every": (1, {**PERSONAL, "rounds": 2}),
    "target": (0.1,),
    "engine": ("loop",),
    "ray.num_workers": (2, {}, REFUSED),
    "ray.num_cpus": (2.0, {}, REFUSED),
    "ray.num_gpus": (0.5, {}, REFUSED),
    "ray.engine": ("loop", {}, REFUSED),
    "ray.address": ("auto", {}, REFUSED),
    "block_size": (1,),
    "chunk": (2, {}, "executor"),
    "threads": (2, {}, "threads"),
    "dtype": ("float64",),
    "precision": ("bf16",),
    "device": ("cuda:99", {}, REFUSED),
    "seed": (1,),
    "out": ("elsewhere",),
    "failures": ("tolerate:1", {"strategy": Stumbles(), "rounds": 2}),
    "client_timeout": (100.0, {}, "executor"),
    "checkpoint_every": (2, {"checkpoint_keep": 0, "rounds": 3}),
    "checkpoint_keep": (1, KEPT),
    "schedule_rounds": (9, {"local.lr_schedule": "cosine", "rounds": 2}),
    "stop.target": (0.01,),
    "stop.patience": (1, {"local.lr": 0.0, "rounds": 2}),
    "time_limit": (1e-9,),
    "fork": ("",),  # the test of forks
}
STATEFUL = {"seed", "cohort", "holdout_clients", "server.lr", "system.stragglers", "weighting", "dtype", "clients"}
"""Settings of which a fork's checkpoint, or the state that it keeps, has values of its own."""
REFUSED_ON_DEVICES = {"chunk", "client_timeout"}
"""Settings that only a simulation has."""
ON_THE_SERVER = {
    *("failures", "block_size", "out", "evaluate_every", "target", "engine", "threads", "time_limit", "stop.target"),
    *("stop.patience", "checkpoint_every", "checkpoint_keep", "model.name", "task.name", "system.max_examples"),
    *("holdout_clients", "rounds", "cohort", "partition.name", "strategy.name", "server.lr", "clients"),
}
"""Settings that a deployment's server follows by the code of a simulation's, and those that a device gets as a name."""


def lr(inputs: Any, outputs: Any) -> nn.Module:
    """A linear model."""
    return nn.Linear(3, outputs)


def settings(key: str, changed: bool, out: Path) -> dict[str, Any]:
    """The settings of a run of the tiny world."""
    value, base = (*SETTINGS[key], {})[:2]
    own = {"task": TASK, "partition": "natural", "model": lr, "rounds": 1, "engine": "vmap", "out": str(out), **base}
    name = key.removesuffix(".name")
    return {**own, name: out / "elsewhere" if key == "out" else value} if changed else own


def written(**given: Any) -> dict[str, Any]:
    """All that a run wrote but for times, paths and its config, or the error with which it ended."""
    try:
        outcome = run(**given)
    except RoundFailed as error:
        return {"error": str(error)}
    assert not isinstance(outcome, list)
    folder = Path(outcome.summary["run_dir"])
    files = [folder / f"{name}.jsonl" for name in ("rounds", "clients", "events")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    summary = {k: v for k, v in outcome.summary.items() if k not in ("seconds", "run_dir", "time")}
    return {
        "rows": [{k: v for k, v in row.items() if "seconds" not in k and k != "time"} for row in rows],
        "summary": summary,
        "checkpoints": sorted(path.name[:12] for path in folder.glob("checkpoints/*")),
        "elsewhere": folder.parent.name == "elsewhere",
    }


def shown(what: str, given: dict[str, Any]) -> str:
    """What shows a setting that changes neither numbers nor logs."""
    setup = build(make(**given))
    if what == "threads":
        return str(setup.config.threads)
    if what == "task":
        return repr(setup.task.class_axis)
    return f"{type(setup.executor)} {vars(setup.executor).get('chunk')}"


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What ``written`` gives for a run without the change; one run for equal settings."""
    out, found = tmp_path_factory.mktemp("unchanged"), dict[str, Any]()

    def look(key: str, **more: Any) -> Any:
        given = {**settings(key, False, out), **more}
        return found[repr(given)] if repr(given) in found else found.setdefault(repr(given), written(**given))

    return look


def test_every_setting_has_an_entry() -> None:
    assert set(known_keys()) <= set(SETTINGS) and {key for key in SETTINGS if key not in known_keys()} == {
        *("task.class_axis", "task.ignore_index", "partition.seed", "partition.held_out")
    }


@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "fork"])
def test_a_setting_of_a_new_run_acts_or_is_refused(key: str, unchanged: Callable[..., Any], tmp_path: Path) -> None:
    how = SETTINGS[key][2] if len(SETTINGS[key]) > 2 else ""
    changed = settings(key, True, tmp_path)
    if how == REFUSED:
        with pytest.raises(ConfigError, match=f"^{key} = "):
            build(make(**changed))
    elif how:
        assert shown(how, changed) != shown(how, settings(key, False, tmp_path))
    else:
        assert written(**changed) != unchanged(key)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run that is forked."""
    out = tmp_path_factory.mktemp("parent")
    outcome = run(task=TASK, model=lr, rounds=1, engine="vmap", strategy="fedavg", out=out, checkpoint_keep=0)
    assert not isinstance(outcome, list)
    return str(outcome.summary["run_dir"])


@pytest.mark.parametrize("key", sorted(STATEFUL))
def test_a_setting_of_a_fork_acts(key: str, parent: str, unchanged: Callable[..., Any], tmp_path: Path) -> None:
    own = {"fork": parent, "rounds": 2, "strategy": "fedavg"}
    assert written(**{**settings(key, True, tmp_path), **own}) != unchanged(key, **own)


@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "fork"])
def test_a_setting_of_a_run_that_goes_on_acts_or_is_refused(key: str, tmp_path: Path) -> None:
    if REFUSED in SETTINGS[key][2:]:
        return
    old, new = (make(**settings(key, changed, tmp_path)) for changed in (False, True))
    if free(key):
        assert key in FREE
        return
    with pytest.raises(ConfigError, match=f"^resume = .*{key} = "):
        check_unchanged(tmp_path, flatten(old.to_dict()), new)


def of_deployment(config: Config) -> tuple[object, ...]:
    """All that a deployment's devices are told, and the numbers of the server's half."""
    setup: Setup = build(deployable(config))
    strategy = {k: v for k, v in vars(setup.strategy).items() if not callable(v)}
    return device_settings(setup), *messages(setup.config), strategy, len(setup.partition)


@functools.cache
def told(own: tuple[tuple[str, Any], ...]) -> tuple[object, ...]:
    """``of_deployment`` of a config that many tests compare with."""
    return of_deployment(make(**dict(own)))


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in {"fork", *ON_THE_SERVER}])
def test_a_setting_of_a_deployment_acts_or_is_refused(key: str) -> None:
    value, base = (*SETTINGS[key], {})[:2]
    plain = {"task": "synthetic", "model": "lr", "partition": "iid", "clients": 4, "engine": "auto"}
    own = {k: v for k, v in {**plain, **base}.items() if not isinstance(v, Stumbles)}
    changed = {**own, key.removesuffix(".name"): value}
    if REFUSED in SETTINGS[key][2:] or key in REFUSED_ON_DEVICES:
        with pytest.raises(ConfigError, match=f"^{key} = "):
            of_deployment(make(**changed))
    else:
        assert of_deployment(make(**changed)) != told(tuple(own.items()))


def test_every_setting_is_in_the_values_of_a_config() -> None:
    names = {key for key in known_keys() if not key.endswith(".name")}
    assert names <= set(values(make())) and {k for k in values(make()) if k.startswith("local.")} <= names
