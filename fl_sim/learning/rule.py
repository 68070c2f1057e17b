"""The client's half of an algorithm: a local rule, written once for ONE client as pure functions of trees.

An engine may call it in a loop or run a whole block of clients through it with ``torch.func.vmap``.

Legend: n a client's samples, S local steps, B batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree

Metrics = dict[str, Tensor]
Streams = dict[str, list[np.ndarray]]
"""By name, the batches of one client: positions 0..n-1 of its training part (n.. are its held-out part), one array a step."""


class Sizes(NamedTuple):
    """How many samples a client has."""

    train: int
    held_out: int


class Draw(NamedTuple):
    """The keys of one client's draws in one round: ``draw("order")``."""

    seed: int
    server_round: int
    client: int

    def __call__(self, purpose: str) -> int:
        """The key for one purpose."""
        return rng.key(self.seed, purpose, self.server_round, self.client)


class LocalRule(ABC):
    """What one client computes from the model it receives."""

    reply_kind: Literal["weights", "update", "none"] = "weights"
    """Whether ``local_update`` replies with a model, with something of a model's shape (a gradient, a delta), or with numbers only."""

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """Which samples each step uses. Default: shuffled passes over the training part, as stream ``train``."""
        return {"train": passes(np.arange(sizes.train), local, draw("order"))}

    @abstractmethod
    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """(reply, new state, metrics). Pure: no in-place change of ``model`` or ``state``.

        ``model`` is the global model, ``state`` what this client returned last time ({} at first), ``batches`` the
        streams, ``metrics`` 0-dim tensors: at least ``loss``.
        """


def passes(positions: np.ndarray, local: Local, key: int) -> list[np.ndarray]:
    """S batches of at most B out of ``positions`` (n,): keyed shuffled passes, each of ceil(n / B) steps, the last one short.

    ``local.steps`` counts steps over as many passes as that takes; otherwise ``local.epochs`` passes. No samples, no steps.
    """
    n = len(positions)
    if n == 0:
        return []
    size = min(local.batch_size or n, n)
    per_pass = -(-n // size)
    steps = local.steps or local.epochs * per_pass
    batches: list[np.ndarray] = []
    for number in range(-(-steps // per_pass)):
        order = positions[rng.permutation(rng.key(key, "pass", number), n)]
        batches += [order[i : i + size] for i in range(0, n, size)]
    return batches[:steps]


def mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """The plain mean of each metric over several dicts with equal keys."""
    return {k: torch.stack([m[k] for m in metrics]).mean(0) for k in metrics[0]}
