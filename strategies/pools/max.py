"""Element-wise max pooling of client models. No paper favours it for weights; see ``strategies/maxpool.py``.

    finish_i = max_k w_k,i

A weight means nothing to it. It commutes with translation: the maximum of deltas leads to the maximum of weights.

Legend: C clients (leading axis).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


class Max(Pool):
    """Element-wise maximum; the clients' weights are ignored."""

    ignores_weights = True
    over: Callable[..., Tensor] = staticmethod(torch.amax)
    """Reduces the leading axis."""
    between: Callable[..., Tensor] = staticmethod(torch.maximum)
    """Reduces two tensors."""

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """The largest of each element over C and the partial."""
        for k, x in replies.items():
            self.take(partial, k, x)
        return partial

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The larger of each element; an empty partial changes nothing."""
        for k, x in b.items():
            self.take(a, k, x[None])
        return a

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The partial itself."""
        return partial

    def take(self, partial: Tree, name: str, x: Tensor) -> None:
        """Reduce stacked ``x`` (C, ...) into ``partial[name]`` (...), which is created or modified in place."""
        extreme = x[0] if len(x) == 1 else self.over(x, 0)
        if name in partial:
            self.between(partial[name], extreme, out=partial[name])
        else:
            partial[name] = extreme.clone() if len(x) == 1 else extreme
