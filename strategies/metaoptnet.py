"""MetaOptNet: the last layer is a support vector machine, trained to its optimum on a client's support.

Lee, Maji, Ravichandran, Soatto, "Meta-Learning with Differentiable Convex Optimization", CVPR 2019, arXiv:1904.03758,
equations 7 to 9. X (N, F) features of support, Y (N, K) its classes, one-hot; the machine of Crammer and Singer has C
and no bias.

    client:  A = argmin of the dual on X X^T, Y;   W = A^T X
             g_k = gradient of l(query; logits scale * W x) for the layers below and for scale
    server:  an optimiser step of both

The dual is solved by a fixed number of accelerated projected gradient steps, and differentiated implicitly
(``strategies/base/meta_learning/svm_head.py``). The scale of logits begins with 1. A support of a single class is
defined: all other classes get the same logit, which is lower.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from fl_sim.tree import Tree
from strategies.base.meta_learning.solved_head import SolvedHead
from strategies.base.meta_learning.svm_head import Dual


@dataclass
class MetaOptNet(SolvedHead):
    """An SVM head for each client; the layers below it and the scale of logits are federated."""

    c: Annotated[float, Gt(0)] = 0.1
    """C: the largest weight of a sample."""
    solver_steps: Annotated[int, Ge(1)] = 100
    """Steps of the solver, and of that of its derivative; more for a large support (N of 75: 300)."""

    def begin(self, trained: Tree) -> Mapping[str, Tree]:
        """A scale of 1."""
        return {"head": {"scale": next(iter(trained.values())).new_ones(())}}

    def solve(self, x: Tensor, targets: Tensor, real: Tensor, learned: Tree) -> Tensor:
        """W = A^T X, in float64: which entries of A are at their bound decides the derivative, not noise."""
        exact, y = x.double(), targets.double()
        dual: Tensor = Dual.apply(exact @ exact.T, y, self.c * y, self.solver_steps)
        return (dual.T @ exact).to(x.dtype)
