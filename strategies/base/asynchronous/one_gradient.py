"""What the strategies of a parameter server share: a client replies with the gradient of one batch.

Legend: P workers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from fl_sim import Batch, Local, Loss, optim, tree
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes
from fl_sim.tree import Tree
from strategies.base.asynchronous.server_steps import Asynchronous

UNUSED = tuple(
    f"local.{name}"
    for name in ("epochs", "epochs_of", "steps", "last_batch", "lr", "optimizer", "momentum", "lr_schedule")
)
"""Settings of local training that one gradient does not have; the server steps at the rate ``strategy.lr``."""


class OneGradient(Asynchronous):
    """Base class: replies are gradients, clipped and with weight decay where ``local.*`` says so."""

    lr: float
    """Rate of the server's steps."""
    begun: Mapping[int, int] = {}
    """Of workers that started from the present model, how many launches they had completed then (``syncsgd``)."""
    reply_kind = "update"
    refuses = (*Asynchronous.refuses, "server.lr", *UNUSED)

    @property
    def workers(self) -> int:
        """P: the workers of the run; of a synchronous round its clients."""
        return self.concurrency or self.cohort or self.population or 1

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """One batch, drawn anew at each launch."""
        return {"train": passes(np.arange(sizes.train), replace(local, steps=1, last_batch="keep"), draw("order"))}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The gradient, and the change of running statistics; the reported loss is that of the batch."""
        [batch] = batches["train"]
        grads, value, buffers = self.gradient(model, model, batch, loss)
        if local.clip_norm:
            grads = optim.clip(grads, local.clip_norm, tree.norm(grads))
        if local.weight_decay:
            grads = tree.add(grads, model, local.weight_decay)
        return {**grads, **tree.sub(buffers, {k: model[k] for k in buffers})}, state, {"loss": value}


def descended(model: Tree, gradient: Tree, rate: float) -> Tree:
    """``model - rate * gradient``, with the bits of ``torch.optim.SGD``."""
    return {k: torch.add(x, gradient[k], alpha=-rate) if k in gradient else x for k, x in model.items()}
