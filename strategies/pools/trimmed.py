"""The coordinate-wise trimmed mean.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
arXiv:1803.01498, definition 2.

    finish_i = mean of the sorted w_1,i ... w_K,i without the b smallest and the b largest,   b = ceil(share K)

b is at least 1 for a share above 0, because a share that trims nobody would be the mean in silence, and at most
(K - 1) / 2, at which it is the median. A weight means nothing to it. It commutes with translation.
"""

import math

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import as_like
from strategies.pools._stack import Stack


class Trimmed(Stack):
    """The mean without the extremes of each element; integer leaves are rounded back to their dtype."""

    ignores_weights = True

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share < 0.5:
            raise ValueError(f"share = {share}: must be at least 0 and below .5; it is cut off at both ends")
        self.share = share

    def cut(self, count: int) -> int:
        """How many of ``count`` replies are left out at each end."""
        return min(math.ceil(self.share * count - 1e-9), (count - 1) // 2)

    def reduce(self, replies: Tree, weights: Tensor, like: Tree) -> Tree:
        """The mean of the middle of each sorted element."""
        cut = self.cut(len(weights))
        ordered = {k: x.to(torch.float64).sort(0).values for k, x in replies.items()}
        return {k: as_like(x[cut : len(weights) - cut].mean(0), like[k]) for k, x in ordered.items()}
