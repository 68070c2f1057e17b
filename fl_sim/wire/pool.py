"""A pool: an associative reduction of client models, so that a worker sends back one model a block, not one a client.

Legend: C clients (leading axis), partial = a tree in the pool's own form.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fl_sim.tree import Tree

WEIGHT = "#weight"
"""The leaf of a partial that holds the sum of weights; ``#`` cannot occur in a module's names."""


class Pool(ABC):
    """An associative reduction: ``finish(merge(add(start(), ...), add(start(), ...)))``.

    Any grouping of the replies gives the same result up to rounding; merging the empty partial changes nothing.
    """

    kind = "pool"
    ignores_weights: bool = False
    """Whether the clients' weights change nothing, so that setting ``weighting`` is an error."""

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
        """The pooled tree, with the dtypes of ``like``; of a partial that nothing was added to: no leaves."""


class PoolingStrategy(Strategy):
    """A Flower strategy that names a pool: replies may come as partial pools of whole blocks.

    Blocks are pooled only where the object passed to ``run_rounds`` is itself of this class. A wrapper around one, such
    as Flower's for differential privacy, gets one reply a client.
    """

    one_reply_a_client: bool = False
    """Whether each client's reply comes by itself, for an algorithm that must know whose it is; default: as partial
    pools of blocks, which take one model's memory a block."""
    own_columns: ClassVar[Sequence[str]] = ()
    """Names of numbers from ``aggregate_train`` that are columns of ``rounds.jsonl`` as they are, without ``train_``
    before them; not those that the driver fills."""
    dropped: Sequence[int] = ()
    """Clients of the round whose partial work is not used: set by ``configure_train``."""
    statistics: Sequence[str] = ()
    """The model's leaves that are running statistics (BatchNorm's buffers), not trained: set by ``run_rounds``."""
    trainable: Sequence[str] = ()
    """The model's leaves that are trained: set by ``run_rounds``; empty where it does not know them."""
    at_home: Sequence[str] = ()
    """The model's leaves that stay with the clients (``LocalRule.home``): set by ``run_rounds``."""
    unanswered: Sequence[str] = ()
    """Statistics that no reply of the round contained, so that they stay as they are: set by ``aggregate_train``."""

    required_numbers: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Phase (``train``, or ``evaluation``) -> the numbers without which the strategy cannot use a reply."""

    @property
    @abstractmethod
    def pool(self) -> Pool:
        """The reduction of replies."""

    @property
    def reply_pool(self) -> Pool:
        """The pool that reduces whole replies, running statistics included; default: ``pool``."""
        return self.pool

    def reply_form(self, model: Tree) -> Tree:
        """A tree that looks like a reply to ``train``: the model, and the payload of replies; default: the model."""
        return model

    def evaluates(self, server_round: int, config: Mapping[str, Any]) -> bool:
        """Whether its hooks for evaluation are called after this round; ``config``: that of ``configure_evaluate``."""
        return True

    def restore(self, kept: Mapping[str, object]) -> None:
        """Take over the attributes that a checkpoint kept (``__getstate__``)."""
        vars(self).update(kept)


def as_like(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the dtype of ``like``; for whole numbers the nearest one."""
    return x.to(like.dtype) if like.is_floating_point() else x.round().to(like.dtype)


def block_pool(strategy: Strategy) -> Pool | None:
    """The pool by which a block's replies are reduced where they are computed; None: each comes by itself."""
    if isinstance(strategy, PoolingStrategy) and not strategy.one_reply_a_client:
        return strategy.reply_pool
    return None
