"""What no silo can train is refused by name before any work."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.config.choices import offered
from experiments.config.recipe_files import make
from experiments.runs.resume import ready
from fl_sim import Batch, Loss, Task, from_arrays
from fl_sim.errors import ConfigError
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))


def task(**options: Any) -> Task:
    return from_arrays(X, (X.sum(1) > 0).long(), clients=torch.arange(24) % 2, **options)


def linear(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 2))


class Scaled(FedAvg):
    """No paper: a step that grows with the number of rows that a process sees."""

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, Tensor, Tree]:
        """The gradient times rows, which are a part of the batch's in a silo of several processes."""
        value: Tensor = loss(model, batch)
        return {k: x * value for k, x in loss.step_gradient(model, batch)[0].items()}, value, {}


def largest(outputs: Tensor, batch: Tree) -> Tensor:
    """A batch's largest error: no mean over samples."""
    return nn.functional.cross_entropy(outputs, batch["y"], reduction="none").max()


class Noise(nn.Module):
    """Noise from torch's generator."""

    def forward(self, x: Tensor) -> Tensor:
        """x with noise."""
        return x + torch.randn_like(x) if self.training else x


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "maml of order 2": ({"strategy": "maml", "strategy.order": 2}, "strategy.order = 2 differentiates through"),
    "perfedavg exact": ({"strategy": "perfedavg", "strategy.order": "exact"}, "strategy.order = 'exact'"),
    "r2d2": ({"strategy": "r2d2"}, "'r2d2', in a silo: its head is solved for"),
    "metaoptnet": ({"strategy": "metaoptnet", "strategy.solver_steps": 2}, "'metaoptnet', in a silo: its head is"),
    "moon": ({"strategy": "moon"}, "'moon', in a silo: its term compares features"),
    "BatchNorm": ({"model": linear(nn.BatchNorm1d(4))}, "in a silo: BatchNorm normalises .* silo.shards = 4"),
    "noise": ({"model": linear(Noise())}, "in a silo: the gradient of a batch is not the mean over its 4 shards"),
    "no mean": ({"task": task(loss=largest)}, "in a silo: the gradient of a batch is not the mean over its 4 shards"),
    "own rule": ({"strategy": Scaled()}, "the algorithm differentiates the loss by itself"),
    "vmap": ({"engine": "vmap"}, "engine = 'vmap': .* and silo.processes = 1; use loop or ray"),
    "vmap on ray": ({"engine": "ray", "ray.engine": "vmap"}, "engine = 'vmap'"),
    "flower": ({"engine": "flower"}, "engine = 'flower'"),
    "too few shards": ({"silo.processes": 3, "silo.shards": 2}, "silo.processes = 3: each process needs a shard"),
    "time limit": ({"silo.processes": 2, "client_timeout": 9.0}, "client_timeout = 9: each block would run in"),
    "bits by speed": (
        {"silo.processes": 2, "silo.reduce": "ring", "silo.balance": True},
        "silo.balance = True: .*'ring'",
    ),
    "idle": ({"silo.processes": 0, "silo.shards": 2}, "silo.shards = 2: does nothing here"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_before_any_work(name: str) -> None:
    given, message = CASES[name]
    with pytest.raises(ConfigError, match=message):
        ready(make(**{"task": task(), "model": linear(), "rounds": 1, "silo.processes": 1, **given}))


def test_one_shard_takes_batch_norm_and_any_loss() -> None:
    one: dict[str, Any] = {"rounds": 1, "silo.processes": 1, "silo.shards": 1}
    setup = ready(make(task=task(loss=largest), model=linear(nn.BatchNorm1d(4)), **one))
    assert setup.engine.name == "loop" and setup.learner.silo is not None


def test_auto_is_the_loop_in_a_silo_and_as_ever_without() -> None:
    more: list[dict[str, Any]] = [{}, {"silo.processes": 1}]
    ran = [ready(make(task=task(), model=linear(), rounds=1, **own)) for own in more]
    assert [(s.engine.name, s.learner.silo is None) for s in ran] == [("vmap", True), ("loop", False)]
    assert "silo" not in ran[0].config.to_dict() and ran[1].config.to_dict()["silo"]["shards"] == 4


def test_every_strategy_that_does_without_whole_batches_has_been_considered() -> None:
    """Those that differentiate the loss themselves, or read outputs of a batch, say so."""
    needs = {n for n, c in offered("strategy").items() if isinstance(c(), LocalRule) and c().whole_batches}
    assert needs == {"anil", "metasgd", "r2d2", "metaoptnet", "moon"}
