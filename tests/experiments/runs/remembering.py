"""A strategy for test_resume.py whose clients and server keep a state from round to round."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fl_sim import tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg


@dataclass
class Remembers(FedAvg):
    """Each client adds a part of its last update, the server of its last step."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> Any:
        new, _, metrics = super().local_update(model, state, batches, loss, local_)
        own = tree.sub(new, model)
        last = state or {k: torch.zeros_like(v) for k, v in own.items()}
        return tree.add(new, last, 0.5), own, metrics

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        step = tree.add(tree.sub(pooled, model), getattr(self, "last", {}), 0.3)
        self.last = step
        return tree.add(model, step)


@dataclass
class Counts(Remembers):
    """Its server writes into what it keeps when a round begins: the rounds begun, which enter the model."""

    def configure_train(self, server_round: int, *args: Any) -> Any:
        self.begun = getattr(self, "begun", [])
        self.begun.append(server_round)
        return super().configure_train(server_round, *args)

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return tree.scale(super().server_step(model, pooled, server_round), 1 - 0.01 * len(self.begun))
