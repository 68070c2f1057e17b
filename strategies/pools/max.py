"""Element-wise max pooling of client models. No paper favours it for weights; see ``strategies/maxpool.py``.

weights: finish_i = max_k w_k,i          deltas: finish_i = d_k*,i with k* = argmax_k |d_k,i|
"""

import torch
from torch import Tensor

from fl_sim.pool import Pool
from fl_sim.tree import Tree


class Max(Pool):
    """Element-wise maximum; weights play no part."""

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """The largest of each element over C and the partial."""
        return self.merge(partial, {k: self.largest(x) for k, x in replies.items()})

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The larger of each element; an empty partial changes nothing."""
        return {k: self.larger(x, b[k]) for k, x in a.items()} if a and b else a or b

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The partial itself."""
        return partial

    def largest(self, x: Tensor) -> Tensor:
        """(C, ...) -> (...)."""
        return x.amax(0)

    def larger(self, a: Tensor, b: Tensor) -> Tensor:
        """Of two tensors of one shape."""
        return torch.maximum(a, b)


class AbsMax(Max):
    """The element of largest magnitude, with its sign; of two equal magnitudes the positive one, so that order does not matter."""

    def largest(self, x: Tensor) -> Tensor:
        """(C, ...) -> (...)."""
        high, low = x.amax(0), x.amin(0)
        return torch.where(high >= -low, high, low)

    def larger(self, a: Tensor, b: Tensor) -> Tensor:
        """Of two tensors of one shape."""
        return self.largest(torch.stack([a, b]))
