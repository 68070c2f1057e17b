"""R2-D2: the last layer is a ridge regression on a client's support, in closed form and differentiated through.

Bertinetto, Henriques, Torr, Vedaldi, "Meta-Learning with Differentiable Closed-Form Solvers", ICLR 2019,
arXiv:1805.08136, equations 4 to 6. X (N, F) features of support, Y (N, K) its classes, one-hot.

    client:  W = X^T (X X^T + lambda I)^-1 Y = (X^T X + lambda I)^-1 X^T Y, whichever system is smaller
             g_k = gradient of l(query; logits scale * x W) for the layers below, for scale and for log lambda
    server:  an optimiser step of all of them

As in the paper lambda and the scale of logits (its alpha) are learned; they begin with lam and 1. lambda is learned by
its logarithm, and stays positive. The paper's beta, one number added to all logits, changes no softmax and is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from fl_sim.tree import Tree
from strategies.base.meta_learning.solved_head import SolvedHead


@dataclass
class R2D2(SolvedHead):
    """A ridge-regression head for each client; the layers below it, lambda and the scale are federated."""

    lam: Annotated[float, Gt(0)] = 50.0
    """lambda before the first round."""

    def begin(self, trained: Tree) -> Mapping[str, Tree]:
        """The logarithm of lambda, and a scale of 1."""
        one = next(iter(trained.values())).new_ones(())
        return {"head": {"log_lambda": torch.log(one * self.lam), "scale": one}}

    def solve(self, x: Tensor, targets: Tensor, real: Tensor, learned: Tree) -> Tensor:
        """The ridge regression."""
        ridge = torch.exp(learned["log_lambda"])
        if x.shape[0] < x.shape[1]:
            return targets.T @ inverse_times(x @ x.T, ridge, x)
        return inverse_times(x.T @ x, ridge, x.T @ targets).T


def inverse_times(a: Tensor, ridge: Tensor, b: Tensor) -> Tensor:
    """(a + ridge I)^-1 b for a positive semidefinite matrix a."""
    regular = a + ridge * torch.eye(len(a), dtype=a.dtype, device=a.device)
    return torch.cholesky_solve(b, torch.linalg.cholesky_ex(regular).L)
