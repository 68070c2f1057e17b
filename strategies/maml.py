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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes
from fl_sim.tree import Tree
from strategies.base.meta_learning.meta_gradients import MetaGradients, after_steps, split


@dataclass
class MAML(MetaGradients):
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
    renamed: ClassVar[Mapping[str, str]] = {"moments": "server_state"}

    @property
    def whole_batches(self) -> str:
        """Order 2 differentiates through the inner steps."""
        return "strategy.order = 2 differentiates through the inner steps; give order 1" if self.order == 2 else ""

    @property
    def own_derivatives(self) -> bool:
        """Order 2."""
        return self.order == 2

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
            adapted = after_steps(start, support, self.inner_step, list(start), model, loss, self.order)
            return loss({**model, **adapted}, query)

        meta, value = torch.func.grad_and_value(outer)(params)
        return meta, state, {"loss": value}

    def inner_step(self, params: Tree, grads: Tree) -> Tree:
        """A step of plain SGD with ``inner_lr``."""
        return tree.add(params, grads, -self.inner_lr)
