"""The weighted mean of client models.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
arXiv:1602.05629, algorithm 1.

    finish = sum_k n_k w_k / sum_k n_k

A weight counts as that many equal replies. Sums are in the replies' dtype: n_k |w_k| must fit into it (float32 carries
weights from 1e-30 to 1e30 of numbers from 1e-8 to 1e8). It commutes with translation.
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import WEIGHT, Pool


class Mean(Pool):
    """Element-wise weighted mean. Integer buffers are averaged in float64 and rounded back to their dtype."""

    def start(self, like: Tree) -> Tree:
        """Zero sums and zero weight."""
        sums = {
            k: torch.zeros_like(x, dtype=x.dtype if x.is_floating_point() else torch.float64) for k, x in like.items()
        }
        return {**sums, WEIGHT: torch.zeros((), dtype=torch.float64)}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Add the weighted sum over C to each leaf: one matrix-vector product a leaf."""
        own: dict[torch.dtype, Tensor] = {}  # weights by dtype, because a GPU waits for each copy
        for k, x in replies.items():
            total = partial[k]
            w = own[total.dtype] = own.get(total.dtype, weights).to(total)
            if len(weights) == 1:
                total.add_(x[0].to(total.dtype), alpha=float(weights[0]))
            else:
                total.add_((w @ x.to(total.dtype).reshape(len(w), -1)).reshape(total.shape))
        partial[WEIGHT] = partial[WEIGHT] + weights.sum().cpu()
        return partial

    def merge(self, a: Tree, b: Tree) -> Tree:
        """Add the sums and the weights of both."""
        return {k: x.add_(b[k]) for k, x in a.items()}

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """Sums divided by the sum of weights."""
        weight = float(partial[WEIGHT])
        means = {k: partial[k] / weight for k in like if k in partial and weight}
        return {k: m if like[k].is_floating_point() else m.round().to(like[k].dtype) for k, m in means.items()}
