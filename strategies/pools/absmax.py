"""The element of largest magnitude, with its sign. No paper; of deltas it is the pool of ``maxpool``.

    finish_i = w_k*,i   with k* = argmax_k |w_k,i|

Of two equal magnitudes it is the positive one, so that the order of replies does not matter. A weight means nothing to
it. It does not commute with translation: of weights and of deltas it gives different models.
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from strategies.pools.max import Max
from strategies.pools.min import Min

LOW = "#low"
"""Suffix of the leaves of a partial that hold a minimum; ``#`` cannot occur in a module's names."""


class AbsMax(Max):
    """The element of largest magnitude; a partial holds maxima and minima, because the element is one of these two."""

    low = Min()
    """Reduces the leaves that hold a minimum."""

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """The largest and the smallest of each element over C and the partial."""
        self.low.add(partial, {k + LOW: x for k, x in replies.items() if x.dtype.is_signed}, weights)
        return super().add(partial, replies, weights)

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The larger of the maxima and the smaller of the minima."""
        self.low.merge(a, {k: x for k, x in b.items() if k.endswith(LOW)})
        return super().merge(a, {k: x for k, x in b.items() if not k.endswith(LOW)})

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """Of the largest and the smallest element the one that is farther from zero."""
        lows = {k: partial[k + LOW] for k in partial if k + LOW in partial}
        return {
            k: torch.where(x >= -lows[k], x, lows[k]) if k in lows else x
            for k, x in partial.items()
            if not k.endswith(LOW)
        }
