"""The engine that auto chooses by the sizes of clients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.config.recipe_files import make
from experiments.run import main, run
from experiments.runs.setup import build
from fl_sim import Partition, from_arrays
from fl_sim.engines.choose import worth

DRAW = np.random.default_rng(0)
TASK = from_arrays(torch.from_numpy(DRAW.normal(size=(400, 3))).float(), DRAW.integers(0, 2, 400), name="tiny")
ROWS = np.arange(320)
EQUAL = Partition.of(np.split(ROWS, 8))
UNEQUAL = Partition.of(np.split(ROWS, np.arange(2, 16, 2)))  # seven of 2 samples, one of 306


def engine_of(**settings: Any) -> tuple[str, str]:
    """(engine, reason) of a run of eight clients."""
    settings = {"task": TASK, "partition": EQUAL, "model": "lr", "local.batch_size": 2, **settings}
    choice = build(make(**settings)).engine
    return choice.name, choice.reason


def test_a_batched_step_must_train_more_clients_than_it_costs() -> None:
    # Two blocks of 10 clients: (30 + 9 * 3) + 10 * 4 steps, of which 30 + 4 are batched ones.
    assert worth(97, 34, 10, 100, 10) == worth(97, 34, 10, 100, 10)
    assert worth(97, 34, 10, 100, 10).name == "loop"  # 2.85 at a time, less than 3
    assert worth(103, 34, 10, 100, 10).name == "vmap"  # 3.03, more than 3 + 0.5 * 1000 / 2.001e6 * 10 = 3.0025
    assert worth(102, 34, 10, 100, 10).name == "loop"  # 3.0, less than 3.0025
    # Two million: half of s's limit. 3 + 0.25 * 10 = 5.5 clients at a time.
    assert [worth(n, 10, 10, 200_000, 10).name for n in (54, 55)] == ["loop", "vmap"]
    assert [worth(n, 10, 10, 200_000, 0).name for n in (29, 30)] == ["loop", "vmap"]
    assert worth(0, 0, 0, 100, 10).name == "vmap"  # nothing to go by: as before
    reason = worth(97, 34, 10, 100, 10).reason
    assert "of a block's 10 clients 2.9 train at a time on average, less than 3" in reason and "--engine vmap" in reason


def test_auto_follows_the_sizes_of_clients_on_a_cpu() -> None:
    assert engine_of() == ("vmap", "")
    name, reason = engine_of(partition=UNEQUAL)  # 7 + 153 steps, 153 batched ones
    assert name == "loop" and "of a block's 8 clients 1 train at a time on average" in reason
    assert engine_of(partition=UNEQUAL, engine="vmap")[0] == "vmap"
    assert engine_of(partition=UNEQUAL, chunk=4)[0] == "vmap"  # which acts in vmap alone
    assert engine_of(partition=UNEQUAL, **{"local.steps": 5}) == ("vmap", "")  # all clients do the same steps
    assert engine_of(partition=UNEQUAL, strategy="maml") == ("vmap", "")
    assert engine_of(cohort=2)[0] == "loop" and engine_of(cohort=4)[0] == "vmap"
    assert engine_of(**{"local.batch_size": 0}, partition=UNEQUAL)[0] == "vmap"  # one step each
    assert engine_of(holdout_clients=6)[0] == "loop"


def test_stragglers_shorten_clients_or_leave_the_round() -> None:
    """Of 8 clients of 20 steps 7 are stragglers; fedavg drops them, fedprox keeps their twentieths."""
    many = {"system.stragglers": 0.9, "local.batch_size": 2}
    assert engine_of(**many)[0] == "loop"
    name, reason = engine_of(**many, strategy="fedprox")
    assert (name, reason) == ("vmap", "")
    assert engine_of(**{"system.stragglers": 0.5})[0] == "vmap"


def test_no_seed_of_a_run_decides_the_engine() -> None:
    mixed = Partition.of(np.split(ROWS, np.cumsum([2, 2, 60, 60, 2, 60, 60])))
    assert len({engine_of(partition=mixed, cohort=4, seed=seed) for seed in range(6)}) == 1


def test_the_log_holds_the_engine_and_why_and_the_config_repeats_it(tmp_path: Path) -> None:
    settings = {"task": TASK, "partition": UNEQUAL, "model": "lr", "rounds": 1, "out": str(tmp_path)}
    auto = run(**settings, **{"local.batch_size": 16})
    start = auto.log.events.query("event == 'start'").iloc[0]
    assert start.engine == "loop" and "train at a time" in start.note
    assert 'engine = "loop"' in (Path(auto.summary["run_dir"]) / "config.toml").read_text()
    loop = run(**settings, engine="loop", **{"local.batch_size": 16})
    assert loop.summary["digest"] == auto.summary["digest"]


def test_several_runs_as_one_batch_stay_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--clients 3 --cohort 3 --model lr --rounds 1 --vmap_over local.lr=.1,.2 --quiet --json --out"
    assert main([*words.split(), str(tmp_path)]) == 0
    folders = sorted(tmp_path.glob("digits-*"))
    events = [json.loads((folder / "events.jsonl").read_text().splitlines()[0]) for folder in folders]
    assert len(events) == 2 and all(e["engine"] == "vmap" and "one of 2 runs of a batch" in e["note"] for e in events)
