"""FedProx: FedAvg with a proximal term that holds clients near the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
arXiv:1812.06127, equation 2 and algorithm 2.

    client:  min_w  l(w) + (mu / 2) |w - w_global|^2,   so each gradient gains  mu * (w - w_global)
    server:  as FedAvg; the partial work of stragglers is kept
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from fl_sim import Batch, Loss, tree
from fl_sim.tree import Tree
from strategies.base import Strategy


@dataclass
class FedProx(Strategy):
    """FedAvg with a proximal term; mu = 0 without stragglers is FedAvg."""

    mu: Annotated[float, Ge(0)] = 0.01
    """Strength of the pull toward the global model."""
    partial_work = "keep"

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, Tensor, Tree]:
        """The loss's gradient plus ``mu * (model - anchor)``; the reported loss is without the proximal term."""
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        return tree.add(grads, tree.sub(model, anchor), self.mu), value, buffers
