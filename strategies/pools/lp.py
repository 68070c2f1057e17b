"""The signed power mean, between the mean (p = 1) and the element of largest magnitude (p to infinity). No paper.

    m_i = sum_k n_k s(w_k,i) |w_k,i|^p / sum_k n_k,      finish_i = s(m_i) |m_i|^(1/p),      s: the sign

A weight counts as that many equal replies. Powers are taken of w / max_k |w_k|, in float64: .01^32 is 0 in float32.
As p grows, a single largest magnitude wins slowly (its weight enters as n^(1/p)); of opposite ties of unequal weight
the heavier sign wins; those of equal weight leave nothing, and the result falls slowly to the next magnitude. What is
left of a difference by rounding alone (1e-14 of its terms) counts as 0. It does not commute with translation.

Legend: C clients (leading axis).
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import WEIGHT, Pool, as_like

POSITIVE, NEGATIVE, SCALE = "#positive", "#negative", "#scale"
"""Suffixes of a partial's leaves: the sums of n (|w| / scale)^p by sign of w, and the largest |w| so far."""
ROUNDING = 1e-14
"""The share of a sum of float64 that may be rounding."""


class Lp(Pool):
    """The signed power mean; integer leaves are rounded back to their dtype."""

    def __init__(self, p: float = 4.0) -> None:
        if not 1 <= p < float("inf"):
            raise ValueError(f"p = {p}: must be at least 1 and finite")
        self.p = p

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Add the powers of C replies, relative to the largest of each element."""
        own = {WEIGHT: weights.sum().cpu()}
        for k, given in replies.items():
            x = given.to(torch.float64)
            scale, w = x.abs().amax(0), weights.to(x)
            powers = _ratio(x, scale).abs() ** self.p
            own[k + POSITIVE] = torch.tensordot(w, powers * (x > 0), 1)
            own[k + NEGATIVE] = torch.tensordot(w, powers * (x < 0), 1)
            own[k + SCALE] = scale
        return self.merge(partial, own)

    def merge(self, a: Tree, b: Tree) -> Tree:
        """Add the sums of both, relative to the larger scale."""
        if not a or not b:
            return a or b
        merged = {WEIGHT: a[WEIGHT] + b[WEIGHT]}
        for k in (k.removesuffix(SCALE) for k in b if k.endswith(SCALE)):
            scale = torch.maximum(a[k + SCALE], b[k + SCALE])
            mine, other = (_ratio(part[k + SCALE], scale) ** self.p for part in (a, b))
            for sign in (POSITIVE, NEGATIVE):
                merged[k + sign] = a[k + sign] * mine + b[k + sign] * other
            merged[k + SCALE] = scale
        return merged

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The p-th root of the mean of signed powers."""
        found: Tree = {}
        for k in (k for k in like if k + SCALE in partial):
            positive, negative = partial[k + POSITIVE], partial[k + NEGATIVE]
            mean = (positive - negative) / partial[WEIGHT].to(positive)
            mean = mean * ((positive - negative).abs() > ROUNDING * (positive + negative))
            found[k] = as_like(mean.sign() * mean.abs() ** (1 / self.p) * partial[k + SCALE], like[k])
        return found


def _ratio(x: Tensor, scale: Tensor) -> Tensor:
    """``x / scale``, and 0 where all are 0."""
    return x / torch.where(scale == 0, 1.0, scale)
