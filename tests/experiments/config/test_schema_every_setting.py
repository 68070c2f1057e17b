"""Every setting acts or is refused by name. Here: in a new run; forks, resumes and deployments walk the same table.

A setting that is added to the schema fails these tests until it has an entry in SETTINGS. The other walks are
``tests/experiments/runs/forks/test_fork_every_setting.py``, ``tests/experiments/runs/test_resume_every_setting.py`` and
``tests/experiments/deploy/test_server_app_every_setting.py``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.config.choices import COMMON
from experiments.config.plan_checks import values
from experiments.config.recipe_files import make
from experiments.config.schema import known_keys
from experiments.runs.resume import ready
from tests.experiments.config.setting_walks import REFUSED, WORLD, Entry, folder_of, or_refused, seen, settings, wrote

PERSONAL: dict[str, Any] = {"personalize_steps": 2, "partition.held_out": 0.4}
KEPT: dict[str, Any] = {"rounds": 3, "checkpoint_every": 1, "checkpoint_keep": 0}

TWO: dict[str, Any] = {"engine": "loop", "silo.processes": 2}

# Each entry: another value, settings that both runs have, and REFUSED or how the change shows where no log does.
SETTINGS: dict[str, Entry] = {
    "task.name": (f"{WORLD}:other",),
    "task.class_axis": (-1, {"task": f"{WORLD}:several", "task.class_axis": 1}),
    "task.ignore_index": (0,),
    "partition.name": ("iid",),
    "partition.seed": (3, {"partition.held_out": 0.4}),
    "partition.held_out": (0.4,),
    "partition.unseen_held_out": (0.8, {"personalize_steps": 2, "partition.held_out": 0.4, "holdout_clients": 1}),
    "partition.feature_shift": (0.5, {"task": f"{WORLD}:pictures", "model": "lr"}),
    "model.name": (f"{WORLD}:two_layers",),
    "strategy.name": ("reptile",),
    "attack.name": ("sign-flip", {"attack": "noise", "attack.share": 0.5}),
    "attack.share": (0.25, {"attack": "sign-flip", "attack.share": 0.5}),
    "codec.name": ("fp16", {"codec": "int8"}),
    "codec.feedback": (False, {"codec": "topk", "rounds": 2}),
    "codec.trees": ("control", {"codec": "topk", "strategy": "scaffold"}),
    "codec.schedule": ("8..1", {"codec": "topk", "rounds": 2}),
    "codec.down": ("topk,share=0.4", {"rounds": 2}),
    "profile.name": ("halfnormal",),
    "profile.seed": (3, {"profile": "halfnormal"}),
    "profile.per": ("launch", {"profile": "halfnormal"}),
    "profile.step": (2.0,),
    "profile.sample": (2.0,),
    "profile.down": (10.0,),
    "profile.up": (10.0,),
    "profile.latency": (1.0,),
    "profile.vanish": (0.5, {"rounds": 2}),
    "profile.on": (9.0, {"profile.on": 3.0, "profile.off": 9.0, "cohort": 2, "rounds": 3}),
    "profile.off": (5.0, {"profile.on": 3.0, "profile.off": 9.0, "cohort": 2, "rounds": 3}),
    "data_dir": ("elsewhere", {}, REFUSED),
    "validation": (0.2,),
    "clients": (2,),
    "holdout_clients": (1,),
    "validation_clients": (1, {"personalize_steps": 2, "partition.held_out": 0.4}),
    "cohort": (2,),
    "concurrency": (2, {"strategy": "fedasync", "rounds": 2}),
    "rounds": (2,),
    "local.epochs": (2,),
    "local.epochs_of": ("1,3",),
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
    "system.deadline": (0.3, {"profile": "halfnormal"}),
    "system.over_select": (2.0, {"cohort": 2}),
    "weighting": ("uniform",),
    "augment": (True, {}, REFUSED),
    "standardize": (True,),
    "standardize_on": ("all", {"standardize": True, "partition.held_out": 0.4, "rounds": 2}),
    "set_metrics": ("class_accuracy",),
    "evaluate_every": (2, {"rounds": 3}),
    "evaluate_virtual": (0.5, {"strategy": "fedasync", "rounds": 3}),
    "evaluate_train": (True,),
    "log_drift": (True,),
    "keep_best": (True, {"validation": 0.2}),
    "personalize_steps": (2, {"partition.held_out": 0.4}),
    "personalize_lr": (0.4, PERSONAL),
    "personalize_optimizer": ("adam", PERSONAL),
    "personalize_queries": ("alone", PERSONAL, REFUSED),
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
    "silo.processes": (1, {"engine": "loop"}),
    "silo.shards": (2, {"engine": "loop", "silo.processes": 1}),
    "silo.reduce": ("library", TWO, "silo"),
    "silo.backend": ("nccl", TWO, REFUSED),
    "silo.wire": ("sockets", TWO, "silo"),
    "silo.shares": ("1,3", TWO, "silo"),
    "silo.balance": (True, TWO, "silo"),
    "silo.timeout": (9.0, TWO, "silo"),
    "block_size": (2,),
    "chunk": (2, {}, "executor"),
    "threads": (2, {}, "threads"),
    "dtype": ("float64",),
    "precision": ("bf16",),
    "device": ("cuda:99", {}, REFUSED),
    "seed": (1,),
    "out": ("elsewhere",),
    "failures": ("tolerate:1", {"strategy": "tests.conformance.stateful:Stumbles", "rounds": 2}),
    "client_timeout": (100.0, {}, "executor"),
    "checkpoint_every": (3, {"checkpoint_keep": 0, "rounds": 3}),
    "checkpoint_keep": (1, KEPT),
    "schedule_rounds": (9, {"local.lr_schedule": "cosine", "rounds": 2}),
    "stop.target": (0.01, {"validation": 0.2}),
    "stop.patience": (1, {"local.lr": 0.0, "rounds": 2, "validation": 0.2}),
    "stop.on": ("test", {"local.lr": 0.0, "rounds": 2, "validation": 0.2, "stop.patience": 1}),
    "stop.virtual_time": (0.5, {"rounds": 2}),
    "time_limit": (1e-9,),
    "digest_every": (9, {"rounds": 3, "evaluate_every": 3}),
}
HOW = {key: entry[2] for key, entry in SETTINGS.items() if len(entry) > 2}
"""REFUSED for the settings that the tiny world refuses, and how those show that no log does."""


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], object]:
    """What a run without the change of a setting wrote; one run for equal settings."""
    out, found = tmp_path_factory.mktemp("unchanged"), dict[str, object]()

    def look(key: str) -> object:
        given = settings(key, SETTINGS[key], False, out)
        if repr(given) not in found:
            found[repr(given)] = wrote(folder_of(given))
        return found[repr(given)]

    return look


def test_every_setting_has_an_entry() -> None:
    assert set(known_keys()) - {"fork"} <= set(SETTINGS)
    of_components = {"task.class_axis", "task.ignore_index", "partition.seed", "partition.held_out"}
    of_components |= {"partition.unseen_held_out", "partition.feature_shift", "attack.share"}
    of_components |= {"codec.feedback", "codec.trees", "codec.schedule", "codec.down"}
    of_components |= {f"profile.{name}" for name in COMMON["profile"]}
    assert {key for key in SETTINGS if key not in known_keys()} == of_components


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_a_new_run_acts_or_is_refused(
    key: str, unchanged: Callable[[str], object], tmp_path: Path
) -> None:
    how, changed = HOW.get(key, ""), settings(key, SETTINGS[key], True, tmp_path)
    if how in ("", REFUSED):
        found = or_refused(key, lambda: wrote(folder_of(changed)))
        assert found == REFUSED if how else found not in (REFUSED, unchanged(key))
    else:
        before, after = (ready(make(**settings(key, SETTINGS[key], each, tmp_path))) for each in (False, True))
        assert seen(how, before) != seen(how, after)


def test_every_setting_is_in_the_values_of_a_config() -> None:
    names = {key for key in known_keys() if not key.endswith(".name")}
    assert names <= set(values(make())) and {k for k in values(make()) if k.startswith("local.")} <= names
