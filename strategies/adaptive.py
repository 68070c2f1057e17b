"""An adaptive power mean: of the same replies three pools, of which the server keeps the best. No paper.

    w(q) = w + server_lr * lp_q(w_k - w)    for q of p / sqrt 2, p, p sqrt 2, each held within [1, 32]
    q*   = argmin_q loss(w(q)) on the server's validation samples;    w <- w(q*),   p <- q*

lp_q is the signed power mean (``strategies/pools/lp.py``): q = 1 is the mean, large q approach the largest change.
With ``of = weights`` models are pooled: w(q) = w + server_lr * (lp_q(w_k) - w). Of equal losses that of p is kept, then
the one of the smaller exponent.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fl_sim import Pool
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base import Received
from strategies.base.weights_or_deltas import WeightsOrDeltas
from strategies.pools.lp import Lp

NUMBER = "#of-"
"""Between a leaf of a partial and the number of its pool; ``#`` cannot occur in a module's names."""
LEAST, MOST = 1.0, 32.0
"""The range of p."""


@dataclass
class Adaptive(WeightsOrDeltas):
    """FedAvg with the power mean whose exponent, one for the model, follows the loss on validation samples."""

    of: Literal["weights", "deltas"] = "deltas"
    """What is pooled: models, or updates."""
    p: Annotated[float, Ge(LEAST), Le(MOST)] = 4.0
    """The exponent before the first round, whose neighbours are tried too."""
    needs_validation = True
    own_columns: ClassVar = ("exponent", "val_loss_lower_p", "val_loss_same_p", "val_loss_higher_p")
    kept = 1  # which of the three pools ``finish`` gives

    @property
    def exponents(self) -> list[float]:
        """The exponents that are tried in the next round."""
        known = self.server_state.get("p")
        p = float(known["p"]) if known else self.p
        return [min(max(round(p * factor, 9), LEAST), MOST) for factor in (2**-0.5, 1.0, 2**0.5)]

    @property
    def pool(self) -> Pool:
        """The three pools in one, so that a block's replies are reduced where they are computed."""
        return Several([Lp(q) for q in self.exponents], self.kept)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The three models, their losses, and the best of them."""
        received = Received()
        for reply in replies:
            self._receive(received, reply)
        if received.partial is None:
            return None, None
        models: list[Tree] = []
        losses: list[float] = []
        for self.kept in range(3):
            models.append(self._stepped(self.model, received, server_round))
            losses.append(self.validated(models[-1]))
        ranks = [(loss if math.isfinite(loss) else math.inf, abs(i - 1), i) for i, loss in enumerate(losses)]
        self.kept = min(ranks)[2]
        new, p = models[self.kept], self.exponents[self.kept]
        self.server_state = {"p": {"p": torch.tensor(p, dtype=torch.float64)}}
        columns = zip(self.own_columns, (p, *losses), strict=True)
        return records.encode(new), MetricRecord({**received.metrics, **dict(columns)})


class Several(Pool):
    """The pools of a list, each with a partial of its own; ``finish`` gives the result of the one that is ``kept``."""

    def __init__(self, pools: Sequence[Pool], kept: int = 0) -> None:
        self.pools, self.kept = pools, kept

    def start(self, like: Tree) -> Tree:
        """The empty partials of all."""
        return _joined([pool.start(like) for pool in self.pools])

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Take in the replies by each."""
        parts = enumerate(self.pools)
        return _joined([pool.add(_part(partial, number), replies, weights) for number, pool in parts])

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The partials of both, by each."""
        return _joined([pool.merge(_part(a, n), _part(b, n)) for n, pool in enumerate(self.pools)])

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The result of the pool that is kept."""
        return self.pools[self.kept].finish(_part(partial, self.kept), like)


def _joined(parts: Sequence[Tree]) -> Tree:
    return {f"{k}{NUMBER}{number}": x for number, part in enumerate(parts) for k, x in part.items()}


def _part(partial: Tree, number: int) -> Tree:
    end = f"{NUMBER}{number}"
    return {k.removesuffix(end): x for k, x in partial.items() if k.endswith(end)}
