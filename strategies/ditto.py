"""Ditto: beside the global model each client trains a model of its own, which is pulled toward the global one.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021,
arXiv:2012.04221, algorithm 1.

    client:  w_k <- w - lr * grad l(w_k; b)   over E passes;   sends w_k
             v_k <- v_k - lr * (grad l(v_k; b') + lam * (v_k - w))   over E passes of its own, w as received
    server:  as FedAvg

v_k is the client's state, and in no message. Before a client trains for the first time v_k = w, the global model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from torch import Tensor

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes, train
from fl_sim.tree import Tree
from strategies.base import Strategy


@dataclass
class Ditto(Strategy):
    """FedAvg, and a personal model a client; lam = 0 is local training, large values the global model."""

    lam: Annotated[float, Ge(0)] = 0.1
    """Strength of the pull of a client's own model toward the global model that it received."""

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """FedAvg's batches, and as many of the stream ``personal``, drawn apart."""
        own = passes(np.arange(sizes.train), local, draw("personal"))
        return {**super().streams(sizes, local, draw), "personal": own}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's local training, and that of the client's own model; the reported loss is of the former."""

        def gradient(v: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            grads, value, buffers = loss.step_gradient(v, batch)
            return tree.add(grads, tree.sub(v, model), self.lam), value, buffers

        new, _, metrics = super().local_update(model, {}, batches, loss, local)
        own, _ = train(state or model, batches["personal"], local, gradient)
        return new, own, metrics

    def own_model(self, model: Tree, state: Tree, batches: Iterable[Batch], loss: Loss) -> Tree:
        """v."""
        return state or model
