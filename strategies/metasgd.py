"""Meta-SGD: MAML that learns the rate of each parameter's inner step along with the initialisation.

Li, Zhou, Chen, Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017, arXiv:1707.09835, algorithm 1, as
federated by Chen et al. 2018, arXiv:1802.07876: a client replies with the gradients of theta and of the rates.

    client:  theta_0 = w;   theta_{i+1} = theta_i - alpha o grad l(theta_i; support_i)   for i < n
             g_k = grad_w l(theta_n; query),   a_k = grad_alpha l(theta_n; query)
    server:  w <- optimiser(w, mean_k g_k),  step outer_lr;   alpha <- optimiser(alpha, mean_k a_k),  step rates_lr

Products ``o`` are element by element. All rates begin with inner_lr. They are subtracted, so that a positive rate
descends; nothing holds them positive, as in the paper, where alpha learns the direction too. They travel beside the
model, down and up: twice MAML's bytes. With rates_lr 0 it is MAML. Personal evaluation takes its steps with the learned
rates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from fl_sim import Batch, Local, Loss
from fl_sim.local import Update, train
from fl_sim.tree import Tree
from strategies.base.meta_learning.meta_gradients import LearnedBeside, after_steps
from strategies.maml import MAML


@dataclass
class MetaSGD(LearnedBeside, MAML):
    """MAML with a learned rate for each parameter."""

    rates_lr: Annotated[float, Ge(0)] = 0.01
    """Learning rate of the server's optimiser for the rates; multiplied by server.lr."""
    refuses = (*MAML.refuses, "personalize_lr", "personalize_optimizer")
    own_derivatives = True

    @property
    def whole_batches(self) -> str:
        """The rates' gradient goes through the inner steps."""
        return "the gradient of the learned rates goes through the inner steps; use maml or reptile"

    def begin(self, trained: Tree) -> Mapping[str, Tree]:
        """All rates are ``inner_lr``."""
        return {"rates": {k: torch.zeros_like(x) + self.inner_lr for k, x in trained.items()}}

    def rate_of(self, name: str) -> float:
        """``rates_lr``."""
        return self.rates_lr

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """Both meta-gradients on query; the reported loss is that of the adapted model on query."""
        support, query = list(batches["support"]), next(iter(batches["query"]))

        def outer(start: Tree, rates: Tree) -> Tensor:
            adapted = after_steps(
                start, support, lambda p, g: stepped(p, g, rates), list(start), model, loss, self.order
            )
            return loss({**model, **adapted}, query)

        start = {k: model[k] for k in loss.trainable}
        (meta, of_rates), value = torch.func.grad_and_value(outer, argnums=(0, 1))(start, payload["rates"])
        return meta, state, {"loss": value}, {"rates": of_rates}

    def adapt(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Tree:
        """A step of the learned rates on each batch; of the settings of fine-tuning steps and batch sizes act."""
        rates = payload["rates"]

        def gradient(at: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            grads, value, buffers = loss.gradient(at, batch)
            return {k: rates[k] * g for k, g in grads.items()}, value, buffers

        return train(model, batches["train"], Local(lr=1.0), gradient)[0]


def stepped(params: Tree, grads: Tree, rates: Tree) -> Tree:
    """``params - rates o grads``."""
    return {k: x - rates[k] * grads[k] for k, x in params.items()}
