"""How far clients of one round move apart: sums over their updates, from which ``drift`` and ``cosine`` follow.

With the updates d_k of K clients, their weights n_k in the pool, N = sum n_k and d = sum n_k d_k / N:

    drift  = sum n_k |d_k|^2 / N - |d|^2        (= sum n_k |d_k - d|^2 / N)
    cosine = mean over k of <d_k, d> / (|d_k| |d|)
           = <sum_k d_k / |d_k|, d> / (K |d|)   over clients whose update is not 0

Neither needs d before the last update has come, so that updates are added up as they come, in float64: a block keeps
two trees of the model's size, not one a client.

Legend: C clients (leading axis of stacked replies).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree


@dataclass
class DriftSums:
    """Sums over the updates of some clients of a round. Only the leaves that are trained take part."""

    weighted: Tree
    """sum n_k d_k, in float64."""
    directions: Tree
    """sum d_k / |d_k|, in float64."""
    weight: float = 0.0
    """N."""
    squares: float = 0.0
    """sum n_k |d_k|^2."""
    moved: int = 0
    """Clients whose update is not 0."""

    def merge(self, other: "DriftSums") -> "DriftSums":
        """The sums of both; those of ``other`` are added to the trees of this one."""
        for mine, theirs in ((self.weighted, other.weighted), (self.directions, other.directions)):
            for k, x in theirs.items():
                mine[k] += x
        return DriftSums(
            self.weighted,
            self.directions,
            self.weight + other.weight,
            self.squares + other.squares,
            self.moved + other.moved,
        )

    def columns(self) -> dict[str, float | None]:
        """``drift`` and ``cosine``; the latter is None where no client moved, or the mean update is 0."""
        if not self.weight:
            return {}
        mean_square = float(_dot(self.weighted, self.weighted)) / self.weight**2
        length = self.moved * mean_square**0.5
        cosine = float(_dot(self.directions, self.weighted)) / self.weight / length if length else None
        return {"drift": max(self.squares / self.weight - mean_square, 0.0), "cosine": cosine}


def added(
    sums: DriftSums | None, replies: Tree, weights: Sequence[float], model: Tree, rule: LocalRule, names: Sequence[str]
) -> DriftSums | None:
    """``sums`` (None: of no client) and those of further clients; None where replies hold nothing that is trained.

    Parameters
    ----------
    replies : Tree
        Stacked (C, ...): models, or updates (``rule.reply_kind``).
    weights : sequence of float
        (C,): the clients' weights in the pool.
    model : Tree
        The model that the clients received.
    names : sequence of str
        The leaves that are trained.
    """
    chosen = [k for k in names if k in replies]
    if not chosen:
        return sums
    anchored = rule.reply_kind == "weights"
    for c, weight in enumerate(weights):
        update = {
            k: replies[k][c].double() - model[k].to(replies[k].device).double() if anchored else replies[k][c].double()
            for k in chosen
        }
        square = float(_dot(update, update))
        if sums is None:
            sums = DriftSums({k: torch.zeros_like(x) for k, x in update.items()}, {})
            sums.directions = {k: torch.zeros_like(x) for k, x in update.items()}
        for k, x in update.items():
            sums.weighted[k] += x * weight
            if square:
                sums.directions[k] += x / square**0.5
        sums.weight, sums.squares = sums.weight + weight, sums.squares + weight * square
        sums.moved += square > 0
    return sums


def merged(a: DriftSums | None, b: DriftSums | None) -> DriftSums | None:
    """The sums of both parts; None where neither has any."""
    return b if a is None else a if b is None else a.merge(b)


def _dot(a: Tree, b: Tree) -> Tensor:
    return torch.stack([torch.sum(a[k] * b[k]) for k in a]).sum()
