"""The base of pools that are not associative: a partial keeps every reply, stacked, with its weight.

Blocks, workers, retries and devices need nothing more than for other pools, and statistics and payloads keep their own
reductions; that is why it is a pool, and not one reply a client (``one_reply_a_client``), which would need a second way
of aggregation. A partial takes the memory of its clients' models.

Legend: C clients (leading axis).
"""

from abc import abstractmethod

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import WEIGHT, Pool


class Stack(Pool):
    """Keeps every reply. A subclass defines ``reduce``, whose result must not depend on the order of the replies."""

    @abstractmethod
    def reduce(self, replies: Tree, weights: Tensor, like: Tree) -> Tree:
        """The pooled tree, with dtypes as in ``like``; replies (C, ...), weights (C,) float64, C is at least 1."""

    def start(self, like: Tree) -> Tree:
        """The empty partial: no leaves."""
        return {}

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Append C replies and their weights."""
        return self.merge(partial, {**replies, WEIGHT: weights.cpu()})

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The replies of ``a``, then those of ``b``."""
        if not a:  # a copy, because replies may be views of what is used again
            return {k: x.clone() for k, x in b.items()}
        if not b:
            return a
        return {k: torch.cat([a[k], x]) for k, x in b.items()}

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """``reduce`` of all replies."""
        replies = {k: x for k, x in partial.items() if k != WEIGHT}
        return self.reduce(replies, partial[WEIGHT], like) if replies else {}
