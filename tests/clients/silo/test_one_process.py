"""A run in a silo of one process: the numbers of the run without a silo to rounding; with one shard its bits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import Silo
from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.plan import first_round_plans, sent
from experiments.runs.resume import ready
from fl_sim import Task, from_arrays, load, rng
from fl_sim.engines.run_block import run_plan
from fl_sim.tree import Tree


def task() -> Task:
    """Clients of 1, 2, 5, 9 and 23 samples."""
    draw = torch.Generator().manual_seed(0)
    x, owners = torch.randn(40, 3, generator=draw), torch.arange(5).repeat_interleave(torch.tensor([1, 2, 5, 9, 23]))
    return from_arrays(x, (x.sum(1) > 0).long(), clients=owners, x_test=x, y_test=(x.sum(1) > 0).long())


def network() -> nn.Module:
    """Two layers with dropout between."""
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.25), nn.Linear(6, 2))


WORLD: dict[str, Any] = {
    "partition": "natural",
    "task": task(),
    "model": network(),
    "dtype": "float64",
    "engine": "loop",
    "local.batch_size": 7,
}


def trained(out: Path, **settings: Any) -> tuple[str, Tree]:
    """(digest, final model) of three rounds in float64, in batches of up to seven samples."""
    summary, error = execute(ready(make(**{**WORLD, "rounds": 3, "out": str(out), **settings})), quiet=True)
    assert error is None
    return str(summary["digest"]), load(Path(summary["run_dir"])).model()


OTHERS: dict[str, dict[str, Any]] = {
    "fedavg": {"local.momentum": 0.9, "local.clip_norm": 0.5},
    "fedprox": {"strategy.mu": 0.1},
    "scaffold": {},
    "ditto": {},
    "feddyn": {},
    "fednova": {},
    "pfedme": {},
    "reptile": {},
    "maml": {"strategy.order": 1},
    "perfedavg": {},
}


@pytest.mark.parametrize("strategy", OTHERS)
def test_every_rule_runs_as_it_is(strategy: str) -> None:
    """Replies within 1e-9 of each tensor's norm; hf takes differences of gradients, which lose half of the digits."""
    setup = ready(make(**WORLD, **{"strategy": strategy, "rounds": 1, **OTHERS[strategy]}))
    most, start = 1e-9 if strategy != "perfedavg" else 1e-7, setup.loss.received(sent(setup))
    learners = setup.learner, in_silo(setup.learner, Silo(1, 4))
    for plan in first_round_plans(setup):
        if strategy == "perfedavg":  # set here, because a run with it measures the product first, which takes seconds
            plan = replace(plan, settings={**plan.settings, "strategy.order": "hf"})
        whole, parts = (run_plan(plan, start, learner, "loop", 0, None) for learner in learners)
        for one, other in zip(whole.clients, parts.clients, strict=True):
            assert not one.reason and not other.reason and one.reply.keys() == other.reply.keys()
            for name, x in {**one.reply, **one.state}.items():
                off = {**other.reply, **other.state}[name] - x
                assert float(off.norm()) <= most * float(x.norm()), name


def test_three_rounds_stay_within_rounding(tmp_path: Path) -> None:
    digest, whole = trained(tmp_path)
    same, parts = trained(tmp_path, **{"silo.processes": 1})
    assert digest != same
    for name, x in whole.items():
        assert float((parts[name] - x).norm()) <= 1e-9 * float(x.norm()), name


def test_one_shard_is_the_batch_itself(tmp_path: Path) -> None:
    one = {"silo.processes": 1, "silo.shards": 1}
    assert trained(tmp_path, rounds=1, **one)[0] == trained(tmp_path, rounds=1)[0]


def test_synchronous_sgd_is_a_silo_whose_shards_are_clients(tmp_path: Path) -> None:
    """Four workers of ten samples, which send one gradient a step, and a client of forty in four shards: one mean."""
    draw = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    linear = nn.Linear(3, 2)

    def run(clients: int, **more: Any) -> Tree:
        own = from_arrays(draw, (draw.sum(1) > 0).long(), clients=torch.arange(40) % clients, test_share=0.0)
        return trained(tmp_path, task=own, model=linear, **{"local.batch_size": 0, **more})[1]

    apart = run(4, strategy="syncsgd", **{"strategy.lr": 0.3})
    together = run(1, **{"local.lr": 0.3, "local.epochs": 1, "silo.processes": 1})
    for name, x in together.items():
        torch.testing.assert_close(apart[name], x, rtol=1e-12, atol=1e-14)
        assert float((x - linear.state_dict()[name]).norm()) > 1e-2  # both have moved
