"""FedAsync: each reply is mixed into the global model at once, the less the more stale it is.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", OPT 2020, arXiv:1903.03934, algorithm 1 and section 5.2.

    client:  min_v  l(v) + (rho / 2) |v - w_start|^2,   which gives w_k
    server:  w <- (1 - alpha s(d)) w + alpha s(d) w_k,   d = server steps since the client's start
    s(d):    constant 1;   polynomial (1 + d)^-a;   hinge 1 if d <= b, else 1 / (a (d - b) + 1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from torch import Tensor

from fl_sim import Batch, Loss, tree
from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived, Asynchronous


@dataclass
class FedAsync(Asynchronous):
    """Mixes each reply in at once; alpha = 1, constant and one client in flight is sequential SGD."""

    alpha: Annotated[float, Gt(0), Le(1)] = 0.6
    """Weight of a fresh reply in the new model."""
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    """How the weight falls with staleness."""
    a: Annotated[float, Ge(0)] = 0.0
    """Of polynomial and hinge; 0: .5 for polynomial, 10 for hinge."""
    b: Annotated[int, Ge(0)] = 4
    """Staleness up to which hinge leaves the weight as it is."""
    rho: Annotated[float, Ge(0)] = 0.0
    """Strength of the pull toward the model from which the client started."""
    refuses = (*Asynchronous.refuses, "server.lr")

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """``a`` and ``b`` where the function has none."""
        idle = {"constant": ("a", "b"), "polynomial": ("b",), "hinge": ()}[self.staleness]
        return dict.fromkeys(idle, f"strategy.staleness is {self.staleness}")

    def s(self, d: int) -> float:
        """The factor of a reply of staleness d."""
        if self.staleness == "polynomial":
            return float((1 + d) ** -(self.a or 0.5))
        late = max(d - self.b, 0) if self.staleness == "hinge" else 0
        return 1 / ((self.a or 10) * late + 1)

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """Toward each reply."""
        for one in arrived:
            model = tree.lerp(model, one.reply, self.alpha * self.s(one.staleness))
        return model

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, Tensor, Tree]:
        """The loss's gradient plus ``rho * (model - anchor)``; the reported loss is without that term."""
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        return tree.add(grads, tree.sub(model, anchor), self.rho) if self.rho else grads, value, buffers
