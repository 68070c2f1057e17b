"""Element-wise max pooling of client models. No paper favours it for weights; see ``strategies/maxpool.py``.

    weights: finish_i = max_k w_k,i          deltas: finish_i = d_k*,i with k* = argmax_k |d_k,i|

Legend: C clients (leading axis).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

LOW = "#low"
"""Suffix of the leaves of a partial that hold a minimum; ``#`` cannot occur in a module's names."""


def _take(partial: Tree, name: str, x: Tensor, over: Callable[..., Tensor], between: Callable[..., Tensor]) -> None:
    """Reduce stacked ``x`` (C, ...) into ``partial[name]`` (...), which is created or modified in place."""
    extreme = x[0] if len(x) == 1 else over(x, 0)
    if name in partial:
        between(partial[name], extreme, out=partial[name])
    else:
        partial[name] = extreme.clone() if len(x) == 1 else extreme


class Max(Pool):
    """Element-wise maximum; the clients' weights are ignored."""

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """The largest of each element over C and the partial."""
        for k, x in replies.items():
            _take(partial, k, x, torch.amax, torch.maximum)
        return partial

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The larger (of minima the smaller) of each element; an empty partial changes nothing."""
        for k, x in b.items():
            low = k.endswith(LOW)
            _take(a, k, x[None], torch.amin if low else torch.amax, torch.minimum if low else torch.maximum)
        return a

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The partial itself."""
        return partial


class AbsMax(Max):
    """The element of largest magnitude, with its sign.

    Of two equal magnitudes it is the positive one, so that the order of replies does not matter. A partial holds maxima
    and minima, because the element is one of these two.
    """

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """The largest and the smallest of each element over C and the partial."""
        for k, x in replies.items():
            if x.dtype.is_signed:
                _take(partial, k + LOW, x, torch.amin, torch.minimum)
        return super().add(partial, replies, weights)

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """Of the largest and the smallest element the one that is farther from zero."""
        lows = {k: partial[k + LOW] for k in partial if k + LOW in partial}
        return {
            k: torch.where(x >= -lows[k], x, lows[k]) if k in lows else x
            for k, x in partial.items()
            if not k.endswith(LOW)
        }
