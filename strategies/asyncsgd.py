"""Asynchronous SGD: each reply is a gradient, applied at once, at a rate that falls with its staleness.

Zhang, Gupta, Lian, Liu, "Staleness-aware Async-SGD for Distributed Deep Learning", IJCAI 2016, arXiv:1511.05950,
equation 6. Delay compensation: Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation", ICML
2017, arXiv:1609.08326, equation 10.

    client:  g = gradient of the loss on one batch at w_start
    server:  w <- w - lr / max(1, d) (g + lambda g * g * (w - w_start)),   d = server steps since the client's start
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived
from strategies.base.asynchronous.one_gradient import OneGradient, descended


@dataclass
class AsyncSGD(OneGradient):
    """Asynchronous SGD on a parameter server; one client in flight is sequential SGD."""

    lr: Annotated[float, Gt(0)] = 0.1
    """Rate of the server's steps."""
    staleness: Literal["inverse", "constant"] = "inverse"
    """How the rate falls with staleness: lr / max(1, d), or not at all."""
    compensation: Annotated[float, Ge(0)] = 0.0
    """lambda of delay compensation, .04 in its paper; 0: none."""

    @property
    def needs_start(self) -> bool:  # type: ignore[override]
        """Delay compensation reads the model from which the client started."""
        return self.compensation > 0

    def rate(self, staleness: int) -> float:
        """The rate of a gradient."""
        return self.lr / max(1, staleness) if self.staleness == "inverse" else self.lr

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """Down each gradient, compensated for the steps that were taken while it was computed."""
        for one in arrived:
            gradient = one.reply
            if self.compensation:
                gradient = {k: g + self.compensation * g * g * (model[k] - one.start[k]) for k, g in gradient.items()}
            model = descended(model, gradient, self.rate(one.staleness))
        return model
