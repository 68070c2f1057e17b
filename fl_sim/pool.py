"""A pool: an associative reduction of client models, so that a worker sends back one model a block, not one a client.

Legend: C clients (leading axis), partial = a tree in the pool's own form.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from fl_sim.tree import Tree

WEIGHT = "#weight"
"""The leaf of a partial that holds the sum of weights; ``#`` cannot occur in a module's names."""


class Pool(ABC):
    """``finish(merge(add(start(), ...), add(start(), ...)))``: any grouping gives the same up to rounding;
    merging the empty partial changes nothing."""

    @abstractmethod
    def start(self, like: Tree) -> Tree:
        """The empty partial for replies shaped as ``like``."""

    @abstractmethod
    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Take in stacked replies (C, ...) with positive weights (C,) float64; may reuse the memory of ``partial``."""

    @abstractmethod
    def merge(self, a: Tree, b: Tree) -> Tree:
        """The partial of both; may reuse the memory of ``a``."""

    @abstractmethod
    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The pooled tree, with the dtypes of ``like``."""
