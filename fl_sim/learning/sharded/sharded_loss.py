"""A loss whose gradient is the sum of the gradients of a batch's shards: the seam at which a silo enters a local rule.

    gradient = sum_s (n_s / N) g_s   in the order of ``shard_tree``,   loss likewise

A rule is called as ever; it sees the mean loss and the mean gradient of the whole batch. Dropout and augmentation draw
what they draw for the whole batch, each shard its own rows.

Legend: N samples of a batch, S shards, n_s samples of one (where labels are ignored: labels that count), D parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NoReturn

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.learning.batch import Batch
from fl_sim.learning.batch_means import COUNTED
from fl_sim.learning.loss import Loss, Term
from fl_sim.learning.sharded.shard_tree import Node, bounds, summed
from fl_sim.tree import Tree

Leaf = Callable[[int], Tensor | None]
"""``shard -> (n_s / N) (its gradient, flat, and its loss)``, (D + 1,), or None for a shard without samples."""
Total = Callable[[Leaf, Sequence[int]], Tensor | None]
"""``(leaf, n_s of each shard) -> the sum over all shards``; a process calls ``leaf`` for the shards that it owns."""


@dataclass(frozen=True)
class PartOfBatch(Batch):
    """The samples of a batch that one process holds: those of its shards. Its size and weight are the whole batch's."""

    samples: int = 0
    """N."""
    first: int = 0
    """The row of the batch with which ``data`` begins."""
    weights: tuple[int, ...] = ()
    """(S,) n_s."""

    @property
    def size(self) -> int:
        """N."""
        return self.samples

    @property
    def weight(self) -> int:
        """The sum of n_s."""
        return sum(self.weights)


def weights_of_shards(batch: Batch, shards: int) -> tuple[int, ...]:
    """(S,) n_s of a whole batch."""
    if isinstance(batch, PartOfBatch):
        return batch.weights
    assert batch.mask is None and batch.active is None, "a silo's batches are not padded"
    edges = bounds(len(batch.data["y"]), shards)
    pairs = list(pairwise(edges))
    if (counted := batch.data.get(COUNTED)) is None:
        return tuple(last - first for first, last in pairs)
    counts = counted.tolist()
    return tuple(sum(counts[first:last]) for first, last in pairs)


class ShardedLoss(Loss):
    """``loss``, whose gradients are computed shard by shard. With one shard it is ``loss``, bit for bit.

    Parameters
    ----------
    loss : Loss
        On the loop engine.
    shards : int
        S.
    total : Total, optional
        Sums over all shards; default: in this process.
    """

    def __init__(self, loss: Loss, shards: int, total: Total | None = None) -> None:
        _ = loss.writes  # found once, before it is copied
        vars(self).update(vars(loss))
        self.shards = shards
        self.total: Total = total or (lambda leaf, weights: summed(Node(0, shards), leaf))

    @cached_property
    def width(self) -> int:
        """D + 1: of all trained leaves, also those that stay with the client and are in no message."""
        return sum(x.numel() for k, x in self.initial().items() if k in self.trainable) + 1

    def step_gradient(
        self, model: Mapping[str, Tensor], batch: Batch, plus: Term | None = None, layer: str = ""
    ) -> tuple[Tree, Tensor, Tree]:
        """As ``Loss.step_gradient``, summed over the batch's shards.

        Raises ConfigError for a term ``plus`` where labels are ignored: its mean is over samples, and the loss's over
        labels, so that no weight of a shard fits both.
        """
        if self.shards == 1 and not isinstance(batch, PartOfBatch):
            return super().step_gradient(model, batch, plus, layer)
        if plus is not None and self.task.ignore_index is not None:
            what = f"the algorithm adds a term to the loss, and task.ignore_index = {self.task.ignore_index}"
            raise ConfigError(f"silo.shards = {self.shards}: {what}; leave out silo.processes")
        samples, weights = int(batch.size), weights_of_shards(batch, self.shards)
        edges, first = bounds(samples, self.shards), batch.first if isinstance(batch, PartOfBatch) else 0
        whole, plain, after = sum(weights), super().step_gradient, dict(model)

        def leaf(shard: int) -> Tensor | None:
            if not weights[shard]:
                return None
            rows = slice(edges[shard] - first, edges[shard + 1] - first)
            # Copied, so that memory is laid out alike whoever holds the shard: some kernels' bits depend on it.
            own = Batch({k: v[rows].clone() for k, v in batch.data.items()}, batch.words)
            assert len(own.data["y"]) == edges[shard + 1] - edges[shard], "the shard is not held here"
            with rng.rows_from(edges[shard]):
                grads, loss, buffers = plain(model, own, plus, layer)
            if self.shards == 1:  # else the network writes into none: see ``check_network``
                after.update(buffers)
            flat = torch.cat([*(grads[k].reshape(-1) for k in self.trainable), loss.reshape(1).to(self.dtype)])
            return flat.mul_(weights[shard] / whole)

        flat = self.total(leaf, weights)
        if flat is None:
            flat = torch.zeros(self.width, dtype=self.dtype, device=self.device)
        *parts, loss = flat.split_with_sizes([*(model[k].numel() for k in self.trainable), 1])
        grads = {k: part.view(model[k].shape) for k, part in zip(self.trainable, parts, strict=True)}
        return grads, loss.view(()), {k: after[k].clone() for k in self.buffers}

    def __call__(self, model: Mapping[str, Tensor], batch: Batch) -> NoReturn:
        """Refused: see ``refused``."""
        raise refused("differentiates the loss by itself (loss(model, batch), as second order does)")

    def outputs(self, model: Mapping[str, Tensor], batch: Batch, layer: str = "", training: bool = True) -> NoReturn:
        """Refused: see ``refused``."""
        raise refused("reads outputs of whole batches (loss.outputs)")

    def weighted_metrics(self, model: Mapping[str, Tensor], batch: Batch) -> Any:
        """Refused: see ``refused``."""
        raise refused("evaluates whole batches as it trains (loss.metrics)")


def refused(what: str) -> ConfigError:
    """The error where an algorithm does ``what``, and no process of a silo has a whole batch."""
    cure = "leave it out, or choose an algorithm that gets its gradients from loss.gradient"
    return ConfigError(f"silo.processes: the algorithm {what}, and no process of a silo has a whole batch; {cure}")
