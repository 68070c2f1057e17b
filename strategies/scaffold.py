"""SCAFFOLD: clients correct the drift of their gradients by control variates.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML
2020, arXiv:1910.06378, algorithm 1 with option II.

    client:  y <- y - lr * (grad l(y; b) - c_i + c)   for K steps from y = x
             c_i+ = c_i - c + (x - y) / (K lr);   sends y and c_i+ - c_i
    server:  x <- x + server_lr * mean_S (y - x);   c <- c + |S|/N * mean_S (c_i+ - c_i)

All clients weigh the same. The control variates travel beside the model, down and up: twice FedAvg's bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Update, num_steps, train
from fl_sim.tree import Tree
from strategies.base import Pooled, Strategy


@dataclass
class Scaffold(Strategy):
    """Plain SGD on clients, along gradients corrected by the difference of the server's and the client's variate."""

    weighting = "uniform"
    partial_work = "keep"
    refuses = ("local.optimizer", "local.momentum", "local.weight_decay", "local.clip_norm")

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Weights by samples, with which c is no mean of the c_i, and steps of length 0, which say nothing of them."""
        weighting = "the server's control variate is the plain mean of the clients', of whom only some reply in a round"
        return {"weighting": {"examples": weighting}, "local.lr": {0.0: "a control variate is a change divided by it"}}

    def up(self, trained: Tree) -> Mapping[str, Tree]:
        """The change of the client's variate."""
        return {"control": tree.zeros(trained)}

    def down(self, trained: Tree) -> Mapping[str, Tree]:
        """The server's variate."""
        return {"control": self.server_state.get("control", tree.zeros(trained))}

    def initial_state(self, model: Tree) -> Tree:
        """c_i = 0."""
        return tree.zeros(model)

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """Corrected local training."""
        steps, control = list(batches["train"]), payload["control"]
        correction = tree.sub(control, state)
        new, metrics = train(model, steps, local, lambda y, batch: self._corrected(y, batch, loss, correction))
        moved = {k: (model[k] - new[k]) / num_steps(steps) / local.lr for k in control}
        change = tree.sub(moved, control)
        return new, tree.add(state, change), metrics, {"control": change}

    def _corrected(self, model: Tree, batch: Batch, loss: Loss, correction: Tree) -> tuple[Tree, Tensor, Tree]:
        grads, value, buffers = loss.step_gradient(model, batch)
        return tree.add(grads, correction), value, buffers

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        """The mean model, and c moved by the share of clients that replied."""
        control = self.server_state.get("control", tree.zeros(pooled.payload["control"]))
        share = len(pooled.clients) / self.population
        self.server_state = {"control": tree.add(control, pooled.payload["control"], share)}
        return self.server_step(model, pooled.model, server_round)
