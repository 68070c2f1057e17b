"""Federated Reptile: the server moves a part of the way toward the mean of the adapted models.

Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", 2018, arXiv:1803.02999, algorithm 2 (batched),
where each task is a client.

    client:  w_k <- k steps of SGD or Adam from w on its own data
    server:  w <- w + epsilon_t * mean_k (w_k - w),   epsilon_t constant, or falling to 0 linearly
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from fl_sim import tree
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.base.schedule import annealed


@dataclass
class Reptile(Strategy):
    """FedAvg whose server step has the factor epsilon; epsilon = 1 is FedAvg at equal weighting."""

    epsilon: Annotated[float, Gt(0)] = 0.5
    """Step from the global model toward the mean of the adapted ones."""
    anneal: Literal["constant", "linear"] = "constant"
    """Epsilon by round: constant, or linear to 0: epsilon * (1 - (t - 1) / T) in round t of T."""
    weighting = "uniform"
    partial_work = "keep"

    @property
    def scheduled(self) -> str:
        """``strategy.anneal`` where epsilon falls linearly until the last round."""
        return "strategy.anneal" if self.anneal == "linear" else ""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """``model + server_lr * epsilon_t * (pooled - model)``."""
        left = annealed(self.anneal, server_round, self.rounds)
        return tree.lerp(model, pooled, self.server_lr * self.epsilon * left)
