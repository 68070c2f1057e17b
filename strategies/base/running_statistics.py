"""Running statistics, such as BatchNorm's mean and variance: always the weighted mean of the clients' own.

They are estimated and not trained, so that neither a pool such as the maximum nor a server's step may act on them: a
step past the mean makes a variance negative.
"""

from collections.abc import Iterable

from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.pools.mean import Mean

MARK = "#mean"
"""Suffix of the leaves of a partial that belong to the mean; ``#`` cannot occur in a module's names."""


class MeanOfStatistics(Pool):
    """``pool`` for what is trained, and the weighted mean for the leaves with the names ``statistics``."""

    def __init__(self, pool: Pool, statistics: Iterable[str]) -> None:
        self.pool, self.statistics, self.mean = pool, frozenset(statistics), Mean()

    def _split(self, tree: Tree) -> tuple[Tree, Tree]:
        """(what is trained, the statistics) of a reply."""
        own = {k: x for k, x in tree.items() if k not in self.statistics}
        return own, {k: x for k, x in tree.items() if k in self.statistics}

    def start(self, like: Tree) -> Tree:
        """The empty partials of both."""
        own, statistics = self._split(like)
        return _joined(self.pool.start(own), self.mean.start(statistics))

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Take in each leaf by its own reduction."""
        (own, mean), (trained, statistics) = _parts(partial), self._split(replies)
        return _joined(self.pool.add(own, trained, weights), self.mean.add(mean, statistics, weights))

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The partials of both."""
        (own, mean), (other, others_mean) = _parts(a), _parts(b)
        return _joined(self.pool.merge(own, other), self.mean.merge(mean, others_mean))

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The pooled tree: each leaf by its own reduction."""
        own, mean = _parts(partial)
        trained, statistics = self._split(like)
        return {**self.pool.finish(own, trained), **self.mean.finish(mean, statistics)}


def _joined(own: Tree, mean: Tree) -> Tree:
    return {**own, **{k + MARK: x for k, x in mean.items()}}


def _parts(partial: Tree) -> tuple[Tree, Tree]:
    """(the partial of the pool, the partial of the mean)."""
    own = {k: x for k, x in partial.items() if not k.endswith(MARK)}
    return own, {k.removesuffix(MARK): x for k, x in partial.items() if k.endswith(MARK)}
