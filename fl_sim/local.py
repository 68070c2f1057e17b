"""The client's half of an algorithm: a local rule, written once for ONE client as pure functions of trees.

An engine may call it in a loop or run a whole block of clients through it with ``torch.func.vmap``.

Legend: n a client's samples, S local steps, B batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim import optim, rng, tree
from fl_sim.loss import Batch, Loss
from fl_sim.settings import Local
from fl_sim.tree import Tree

Gradient = Callable[[Tree, Batch], tuple[Tree, Tensor, Tree]]
"""``(model, batch) -> (gradient, loss (), new buffers)``. Must not keep ``model``: the next step may write into its tensors."""
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


def train(model: Tree, batches: Iterable[Batch], local: Local, gradient: Gradient) -> tuple[Tree, Metrics]:
    """Local training: one optimiser step a batch along ``gradient``; a padded step (``batch.active`` False) changes nothing.

    Returns the new model and ``loss``: the mean over all samples used, each at the model that met it.
    """
    rule = optim.RULES[local.optimizer]
    rates = optim.Rates(local.lr, local.momentum, local.weight_decay)
    in_place = replace(rates, in_place=True)
    state: optim.State = {}
    total: Tensor | float = 0.0
    count: Tensor | int = 0
    for step, batch in enumerate(batches):
        grads, loss, buffers = gradient(model, batch)
        if local.clip_norm:
            grads = optim.clip(grads, local.clip_norm, tree.norm(grads))
        own = step > 0 and batch.active is None  # after the first step these tensors are this client's own
        params, new_state = rule({k: model[k] for k in grads}, grads, state, step, in_place if own else rates)
        new = {**model, **buffers, **params}
        if batch.active is not None:
            new = tree.where(batch.active, new, model)
            old_state = state or {name: tree.zeros(value) for name, value in new_state.items()}
            new_state = {name: tree.where(batch.active, value, old_state[name]) for name, value in new_state.items()}
        model, state = new, new_state
        total, count = total + loss * batch.size, count + batch.size
    denominator = count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
    return model, {"loss": torch.as_tensor(total / denominator)}


def mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """The plain mean of each metric over several dicts with equal keys."""
    return {k: torch.stack([m[k] for m in metrics]).mean(0) for k in metrics[0]}
