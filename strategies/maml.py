"""Federated MAML: clients send meta-gradients, and the server takes an optimiser step along their mean.

Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, arXiv:1703.03400,
algorithm 1, as federated by Chen, Luo, Dong, Li, He, "Federated Meta-Learning with Fast Convergence and Efficient
Communication", 2018, arXiv:1802.07876, algorithm 1.

    client:  theta_0 = w;   theta_{i+1} = theta_i - inner_lr * grad l(theta_i; support_i)   for i < n
             g_k = grad_w l(theta_n; query)
    server:  w <- optimiser(w, mean_k g_k),   of a step outer_lr that is constant, or falls to 0 linearly

Clients send gradients only: the running statistics of a model with BatchNorm keep their initial values, which the run
says before it starts. The steps of clients normalise by batch; evaluation uses the initial statistics.

Of the settings of local training only ``local.batch_size`` and ``local.last_batch`` act, on support and query batches.

Order 2 differentiates through the inner steps; order 1 takes the gradient at theta_n for that at w (FOMAML).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge

from fl_sim import Batch, Local, Loss, optim, rng, tree
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.base.schedule import annealed

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


@dataclass
class MAML(Strategy):
    """One meta-gradient a client and round."""

    inner_lr: Annotated[float, Ge(0)] = 0.05
    """Step of the inner loop."""
    inner_steps: Annotated[int, Ge(1)] = 1
    """Inner steps on support batches (of local.batch_size)."""
    order: Literal[1, 2] = 1
    """1: first-order MAML; 2: with derivatives through the inner loop."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The server's optimiser on the mean meta-gradient."""
    outer_lr: Annotated[float, Ge(0)] = 0.1
    """Learning rate of the server's optimiser; multiplied by server.lr."""
    anneal: Literal["constant", "linear"] = "constant"
    """outer_lr by round: constant, or linear to 0: outer_lr * (1 - (t - 1) / T) in round t of T."""
    support_size: Annotated[int, Ge(0)] = 0
    """Samples of a client's support set, drawn anew each round; 0: those that query leaves (half, if both are 0)."""
    query_size: Annotated[int, Ge(0)] = 0
    """Samples of its query set; 0: those that support leaves (half, if both are 0)."""
    weighting = "uniform"
    reply_kind = "update"
    refuses = ("local.epochs", "local.epochs_of", "local.steps", *UNUSED)
    renamed: ClassVar[Mapping[str, str]] = {"moments": "server_state"}

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
        names = [k for k in loss.buffers if k in loss.writes.buffers]
        what = f"maml: clients send gradients only, so that the running statistics {', '.join(names)} keep their "
        what += "initial values, by which evaluation normalises; use perfedavg, whose clients send them, or a network "
        return (f"{what}without, such as one with GroupNorm or BatchNorm(track_running_stats=False)",) if names else ()

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """One optimiser step along the mean meta-gradient."""
        params = {k: model[k] for k in pooled}
        rates = optim.Rates(self.server_lr * self.outer_lr * annealed(self.anneal, server_round, self.rounds))
        rule, moments = optim.RULES[self.optimizer], dict(self.server_state)
        new, self.server_state = rule(params, pooled, moments, server_round - 1 - self.state_since, rates)
        return {**model, **new}

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """``inner_steps`` batches of support, one of query, from a keyed split of this round."""
        support, query = split(sizes.train, draw("split"), self.support_size, self.query_size, sizes.turns)
        return {
            "support": passes(support, replace(local, steps=self.inner_steps), draw("support")),
            "query": passes(query, replace(local, steps=1), draw("query")),
        }

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The meta-gradient on query; the reported loss is that of the adapted model on query."""
        support, query = list(batches["support"]), next(iter(batches["query"]))
        params = {k: model[k] for k in loss.trainable}
        if self.order == 1:
            adapted = params
            for batch in support:
                grads, _, _ = loss.gradient({**model, **adapted}, batch)
                adapted = tree.add(adapted, grads, -self.inner_lr)
            meta, value, _ = loss.gradient({**model, **adapted}, query)
            return meta, state, {"loss": value}

        def outer(start: Tree) -> torch.Tensor:
            adapted = start
            for batch in support:
                grads = torch.func.grad(lambda p, b=batch: loss({**model, **p}, b))(adapted)
                adapted = tree.add(adapted, grads, -self.inner_lr)
            return loss({**model, **adapted}, query)

        meta, value = torch.func.grad_and_value(outer)(params)
        return meta, state, {"loss": value}
