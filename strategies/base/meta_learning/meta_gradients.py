"""What algorithms share whose clients send meta-gradients: support and query, inner steps, the server's optimiser.

client:  adapted = w after what the algorithm does with support;   g_k = grad_w l(adapted; query)
server:  w <- optimiser(w, mean_k g_k),   of a step outer_lr that is constant, or falls to 0 linearly
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from fl_sim import Batch, Local, Loss, optim, rng
from fl_sim.tree import Tree
from strategies.base.naming import name_of
from strategies.base.round_replies import Pooled
from strategies.base.schedule import annealed
from strategies.base.strategy import Strategy

UNUSED = tuple(f"local.{name}" for name in ("lr", "optimizer", "momentum", "weight_decay", "clip_norm", "lr_schedule"))
"""Settings of local training that the inner loop, plain SGD with ``inner_lr``, does not use."""


def split(n: int, key: int, support: int = 0, query: int = 0, turns: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A keyed split of the positions 0..n-1 into support and query, of these sizes.

    A size of 0 is what the other one leaves. Where both are 0 they are halves: where n is odd, query gets one more; a
    single sample is in both. ``turns`` : samples lie in turns of so many classes (``Sizes.turns``), of each of which
    support and query get equally many samples. Raises ValueError that names the setting where n is too small, and where
    a size is no multiple of ``turns``.
    """
    if turns:
        for name, size in (("support_size", support), ("query_size", query)):
            if size % turns:
                what = f"each client has {turns} classes, and gives equally many samples of each"
                raise ValueError(f"strategy.{name} = {size}: {what}; give a multiple of {turns}")
        parts = [split(n // turns, rng.key(key, "class", c), support // turns, query // turns) for c in range(turns)]
        both = [np.stack([part[i] * turns + c for c, part in enumerate(parts)], 1).reshape(-1) for i in (0, 1)]
        return both[0], both[1]
    order = rng.permutation(key, n)
    if not support and not query:
        return (order, order) if n < 2 else (order[: n // 2], order[n // 2 :])
    needed = max(support, 1) + max(query, 1)
    if n < needed:
        name, size = ("support_size", support) if support else ("query_size", query)
        raise ValueError(f"strategy.{name} = {size}: support and query need {needed} samples, a client has {n}")
    first = support or n - query
    return order[:first], order[first : first + query if query else n]


def after_steps(
    start: Tree,
    support: Sequence[Batch],
    step: Callable[[Tree, Tree], Tree],
    leaves: Collection[str],
    model: Tree,
    loss: Loss,
    order: int,
) -> Tree:
    """``start`` after an inner step on each batch of support, differentiable in ``start`` and in what ``step`` uses.

    Parameters
    ----------
    step : Callable
        ``(the leaves that adapt, their gradients) -> these leaves after one step``.
    leaves : Collection of str
        Those of ``start`` that adapt; the others keep their values.
    model : Tree
        The leaves that ``start`` lacks (buffers).
    order : int
        1: gradients are constants; 2: they are differentiated too.
    """
    adapted = start
    for batch in support if leaves else ():
        whole, own = {**model, **adapted}, {k: adapted[k] for k in leaves}
        grads = torch.func.grad(lambda p, w=whole, b=batch: loss({**w, **p}, b))(own)
        grads = {k: g.detach() for k, g in grads.items()} if order == 1 else grads
        adapted = {**adapted, **step(own, grads)}
    return adapted


class MetaGradients(Strategy):
    """The server's half, and what is said of it before a run. A subclass is a dataclass with the numbers below."""

    optimizer: Literal["sgd", "adam"]
    """The server's optimiser on the mean meta-gradient."""
    outer_lr: float
    """Learning rate of the server's optimiser; multiplied by server.lr."""
    anneal: Literal["constant", "linear"]
    """outer_lr by round: constant, or linear to 0: outer_lr * (1 - (t - 1) / T) in round t of T."""
    support_size: int
    """Samples of a client's support set, drawn anew each round; 0: those that query leaves (half, if both are 0)."""
    query_size: int
    """Samples of its query set; 0: those that support leaves (half, if both are 0)."""
    weighting = "uniform"
    reply_kind = "update"
    refuses = ("local.epochs", "local.epochs_of", "local.steps", *UNUSED)

    @property
    def scheduled(self) -> str:
        """``strategy.anneal`` where the step falls linearly until the last round."""
        return "strategy.anneal" if self.anneal == "linear" else ""

    @property
    def least_samples(self) -> int:
        """Training samples that each client needs, for support and query."""
        return max(self.support_size, 1) + max(self.query_size, 1) if self.support_size or self.query_size else 1

    def network_notes(self, loss: Loss, local: Local) -> Sequence[str]:
        """Which running statistics of the network keep their initial values."""
        names, who = [k for k in loss.buffers if k in loss.writes.buffers], name_of(type(self))
        what = f"{who}: clients send gradients only, so that the running statistics {', '.join(names)} keep their "
        what += "initial values, by which evaluation normalises; use perfedavg, whose clients send them, or a network "
        return (f"{what}without, such as one with GroupNorm or BatchNorm(track_running_stats=False)",) if names else ()

    def optimised(
        self, params: Tree, grads: Tree, moments: Mapping[str, Tree], server_round: int, lr: float
    ) -> tuple[Tree, dict[str, Tree]]:
        """(``params`` after one step of the server's optimiser, its new moments)."""
        rates = optim.Rates(self.server_lr * lr * annealed(self.anneal, server_round, self.rounds))
        return optim.RULES[self.optimizer](params, grads, dict(moments), server_round - 1 - self.state_since, rates)

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """One optimiser step along the mean meta-gradient."""
        params = {k: model[k] for k in pooled}
        new, self.server_state = self.optimised(params, pooled, self.server_state, server_round, self.outer_lr)
        return {**model, **new}


class LearnedBeside(MetaGradients):
    """Meta-gradients of the model, and of trees that the server learns beside it and sends with it.

    They are in ``server_state`` by their names, and the optimiser's moments of tree NAME as ``NAME.MOMENT``.
    """

    def begin(self, trained: Tree) -> Mapping[str, Tree]:
        """The trees before the first round, by name. A pure function of its argument and the algorithm's numbers."""
        raise NotImplementedError

    def rate_of(self, name: str) -> float:
        """The server's learning rate for the tree ``name``. Default: ``outer_lr``."""
        return self.outer_lr

    def up(self, trained: Tree) -> Mapping[str, Tree]:
        """The gradient of each tree."""
        return self.begin(trained)

    def down(self, trained: Tree) -> Mapping[str, Tree]:
        """The trees as the server has them."""
        return {name: self.server_state.get(name, first) for name, first in self.begin(trained).items()}

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        """One optimiser step of the model, and one of each tree."""
        beside = self.down(self._trained(model))
        old, kept = self.server_state, dict[str, Tree]()
        for name, values in beside.items():
            moments = {k.removeprefix(f"{name}."): x for k, x in old.items() if k.startswith(f"{name}.")}
            kept[name], new = self.optimised(
                dict(values), pooled.payload[name], moments, server_round, self.rate_of(name)
            )
            kept |= {f"{name}.{k}": x for k, x in new.items()}
        self.server_state = {k: x for k, x in old.items() if "." not in k and k not in beside}
        stepped = self.server_step(model, pooled.model, server_round)
        self.server_state = {**self.server_state, **kept}
        return stepped
