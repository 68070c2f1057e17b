"""Element-wise max pooling of client models. No paper favours it.

On weights it is usually far worse than the mean (curves: ``experiments/results``), because the maximum of K noisy
copies is biased upward in every coordinate. It is included on request, and as the smallest example of a pool.

    weights:  w_i <- w_i + lr (max_k w_k,i - w_i)
    deltas:   w_i <- w_i + lr d_k*,i,   d_k = w_k - w,  k* = argmax_k |d_k,i|  (the largest move, with its sign)

A plain maximum of deltas would be the maximum of weights again, so deltas are pooled by magnitude.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fl_sim import Batch, Local, Loss, Pool, tree
from fl_sim.local import Metrics
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.pools.max import AbsMax, Max


@dataclass
class MaxPool(Strategy):
    """FedAvg with another pool, which ignores how many samples a client has."""

    of: Literal["weights", "deltas"] = "weights"
    """What is pooled: models by maximum, or updates by largest magnitude."""
    refuses = ("weighting",)

    def __post_init__(self) -> None:
        self.reply_kind = "update" if self.of == "deltas" else "weights"

    @property
    def pool(self) -> Pool:
        """Maximum, or the value of largest magnitude."""
        return AbsMax() if self.of == "deltas" else Max()

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """Toward the maximum, or along the pooled update."""
        return (
            tree.add(model, pooled, self.server_lr) if self.of == "deltas" else tree.lerp(model, pooled, self.server_lr)
        )

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's local training; replies with the new model, or with its change."""
        new, state, metrics = super().local_update(model, state, batches, loss, local)
        return (tree.sub(new, model) if self.of == "deltas" else new), state, metrics
