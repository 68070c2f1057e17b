"""Collaborative pooling: the server weighs each update by how far it agrees with the others, layer by layer. No paper.

    c_k = d_k min(1, median_j |d_j| / |d_k|),    d_k = w_k - w       clipped to the median length of whole updates
    a_k = max(0, cos(c_k, mean_{j != k} c_j))                        in each layer
    w <- w + server_lr * sum_k a_k c_k / sum_k a_k                   where all a_k are 0: the median of the c_k

No weight is one that a client reports: not even its number of samples counts. Whoever disagrees weighs nothing, the
liar as well as the honest client that alone has a label (``docs/pooling.md`` shows both). A layer: the leaves of one
module. A single update is taken as it is.

Legend: C clients (leading axis), D numbers of a layer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fl_sim import Batch, Local, Loss, Pool, tree
from fl_sim.local import Metrics
from fl_sim.tree import Tree
from fl_sim.wire.pool import as_like
from strategies.base import Strategy
from strategies.pools.median import Median

ROUNDING = 1e-12
"""A cosine that may be rounding alone, and counts as 0."""


class Agreement(Median):
    """The mean of clipped updates, weighted by their agreement; the median where none agree, and of integer leaves."""

    def reduce(self, replies: Tree, weights: Tensor, like: Tree) -> Tree:
        """The pooled update of stacked ones (C, ...); ``weights`` are ignored."""
        floats = {k: x.to(torch.float64) for k, x in replies.items() if x.is_floating_point()}
        pooled = super().reduce({k: x for k, x in replies.items() if k not in floats}, weights, like)
        norms = torch.stack([tree.norm(tree.take(floats, k)) for k in range(len(weights))])
        clipped = torch.minimum(norms, norms.quantile(0.5)) / torch.where(norms > 0, norms, 1.0)
        layers: dict[str, Tree] = {}
        for k, x in floats.items():
            layers.setdefault(k.rpartition(".")[0], {})[k] = x * clipped.reshape(-1, *[1] * (x.ndim - 1))
        for layer in layers.values():
            agrees = agreement(torch.cat([x.reshape(len(x), -1) for x in layer.values()], 1))
            means = {k: torch.tensordot(agrees, x, 1) / agrees.sum() for k, x in layer.items()}
            pooled |= means if bool(agrees.any()) else super().reduce(layer, weights, layer)
        return {k: as_like(pooled[k], like[k]) for k in like if k in pooled}


def agreement(updates: Tensor) -> Tensor:
    """The weights (C,) of updates (C, D): each one's cosine with the mean of the others, and 0 where it is negative."""
    cosines = cosine_similarity(updates, updates.sum(0) - updates, dim=1, eps=1e-300)
    return torch.where(cosines > ROUNDING, cosines, 0.0)


@dataclass
class Collaborative(Strategy):
    """FedAvg's local training; the server pools updates by their agreement."""

    reply_kind = "update"
    weighting = "uniform"  # of running statistics too
    refuses = ("weighting",)

    @property
    def pool(self) -> Pool:
        """By agreement."""
        return Agreement()

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """Along the pooled update."""
        return tree.add(model, pooled, self.server_lr)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's local training; replies with the change of the model."""
        new, state, metrics = super().local_update(model, state, batches, loss, local)
        return tree.sub(new, model), state, metrics
