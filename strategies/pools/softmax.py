"""The mean weighted by exponentials of the elements: T to 0 is the maximum, T to infinity the mean. No paper.

    finish_i = sum_k n_k w_k,i e^(w_k,i / t) / sum_k n_k e^(w_k,i / t),      t = T max(std(w), 1e-8)

std(w): the standard deviation of a leaf of the *global* model w at the round's start, so that T has no unit; a leaf
of equal numbers, such as a bias of zeros, has 1e-8, so that its maximum is taken. A weight counts as that many equal
replies; as T falls it matters less, and to the maximum nothing. It commutes with translation.

Legend: C clients (leading axis).
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool, as_like

ABOVE, TOTAL, HIGH = "#above", "#total", "#high"
"""Suffixes of a partial's leaves: sum n e (w - high), sum n e with e = e^((w - high) / t), and the largest w so far."""
LEAST = 1e-8
"""The least standard deviation."""


class Softmax(Pool):
    """The softmax-weighted mean; without a ``model`` T has the unit of the elements."""

    def __init__(self, T: float = 1.0, model: Tree | None = None) -> None:  # as in the formula
        if not 0 < T < float("inf"):
            raise ValueError(f"T = {T}: must be above 0 and finite")
        spread = {k: float(x.to(torch.float64).std(correction=0)) for k, x in (model or {}).items()}
        self.T, self.units = T, {k: max(x, LEAST) for k, x in spread.items()}

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Add the exponentials of C replies, relative to the largest of each element."""
        own: Tree = {}
        for k, given in replies.items():
            x = given.to(torch.float64)
            high, w = x.amax(0), weights.to(x)
            e = self._exp(k, x - high)
            own[k + ABOVE], own[k + TOTAL] = torch.tensordot(w, e * (x - high), 1), torch.tensordot(w, e, 1)
            own[k + HIGH] = high
        return self.merge(partial, own)

    def merge(self, a: Tree, b: Tree) -> Tree:
        """Add the sums of both, relative to the larger maximum."""
        if not a or not b:
            return a or b
        merged: Tree = {}
        for k in (k.removesuffix(HIGH) for k in b if k.endswith(HIGH)):
            high = torch.maximum(a[k + HIGH], b[k + HIGH])
            for part in (a, b):
                lower = part[k + HIGH] - high
                e, total = self._exp(k, lower), part[k + TOTAL]
                above = e * (part[k + ABOVE] + lower * total)
                merged[k + ABOVE] = merged[k + ABOVE] + above if k + ABOVE in merged else above
                merged[k + TOTAL] = merged[k + TOTAL] + e * total if k + TOTAL in merged else e * total
            merged[k + HIGH] = high
        return merged

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The weighted means."""
        means = {k: partial[k + HIGH] + partial[k + ABOVE] / partial[k + TOTAL] for k in like if k + HIGH in partial}
        return {k: as_like(x, like[k]) for k, x in means.items()}

    def _exp(self, name: str, below: Tensor) -> Tensor:
        """e^(below / t) for numbers of leaf ``name`` that are at most 0."""
        return torch.exp(below / (self.T * self.units.get(name, 1.0)))
