"""The Euclidean norm of each element over the clients, as the project's founding text has it. No paper.

    finish_i = (sum_k w_k,i^2)^(1/2)

The sign is lost, and K equal replies give K^(1/2) times theirs: of weights it grows from round to round. A weight means
nothing to it. It does not commute with translation. Sums are in float64, where the square of no float32 overflows.
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool, as_like


class L2Norm(Pool):
    """The root of the sum of squares; integer leaves are rounded back to their dtype."""

    ignores_weights = True

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Add the squares of C replies."""
        return self.merge(partial, {k: x.to(torch.float64).square().sum(0) for k, x in replies.items()})

    def merge(self, a: Tree, b: Tree) -> Tree:
        """Add the sums of both."""
        return {**a, **{k: a[k] + x if k in a else x for k, x in b.items()}}

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The roots."""
        return {k: as_like(x.sqrt(), like[k]) for k, x in partial.items()}
