"""FedDyn: each client's loss gets a linear term, so that all clients' minima agree with the global one.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic Regularization", ICLR
2021, arXiv:2111.04263, algorithm 1.

    client:  theta_i = argmin  l_i(theta) - <g_i, theta> + alpha/2 |theta - w|^2,   by local training from w
             g_i <- g_i - alpha (theta_i - w)
    server:  h <- h - alpha/N sum_S (theta_i - w);   w <- mean_S theta_i - h / alpha
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from strategies.base import Pooled, Strategy


@dataclass
class FedDyn(Strategy):
    """Local training with a dynamic regulariser; all clients weigh the same."""

    alpha: Annotated[float, Gt(0)] = 0.01
    """Strength of the regulariser; large values hold clients near the global model."""
    weighting = "uniform"
    partial_work = "keep"
    refuses = ("server.lr",)

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Weights by samples, with which h is no mean of the g_i."""
        return {"weighting": {"examples": "the server's h is the plain mean of the clients' g; not all reply"}}

    def initial_state(self, model: Tree) -> Tree:
        """g_i = 0."""
        return tree.zeros(model)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local training on the regularised loss; the reported loss is without the regulariser."""

        def gradient(theta: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            grads, value, buffers = loss.step_gradient(theta, batch)
            return tree.add(tree.add(grads, tree.sub(theta, model), self.alpha), state, -1.0), value, buffers

        new, metrics = train(model, batches["train"], local, gradient)
        moved = {k: new[k] - model[k] for k in loss.trainable}
        return new, tree.add(state, moved, -self.alpha), metrics

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        """The mean of the clients' models, corrected by h."""
        moved = {k: pooled.model[k] - x for k, x in self._trained(model).items()}
        h = self.server_state.get("h", tree.zeros(moved))
        h = tree.add(h, moved, -self.alpha * len(pooled.clients) / self.population)
        self.server_state = {"h": h}
        return tree.add(pooled.model, h, -1 / self.alpha)
