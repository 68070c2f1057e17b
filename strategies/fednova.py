"""FedNova: updates are divided by the clients' own numbers of steps, so that those who do more do not count for more.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020, arXiv:2007.07481, equations 8-11 and section 4 (momentum).

    client:  w_i <- tau_i local steps from w;   d_i = (w_i - w) / |a_i|
             |a_i| = tau_i;   with momentum rho [tau_i - rho (1 - rho^tau_i) / (1 - rho)] / (1 - rho)
    server:  w <- w + server_lr * (sum_i p_i |a_i|) sum_i p_i d_i,   p by examples of those who replied
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Update, num_steps
from fl_sim.tree import Tree
from strategies.base import Pooled, Strategy


@dataclass
class FedNova(Strategy):
    """FedAvg with normalised updates; where all clients take as many steps it is FedAvg."""

    reply_kind = "update"
    partial_work = "keep"
    refuses = ("local.optimizer",)

    def up(self, trained: Tree) -> Mapping[str, Tree]:
        """|a_i|, a number of each client."""
        return {"steps": {"norm": next(iter(trained.values())).new_zeros(())}}

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """The update divided by |a_i|, and |a_i|; running statistics are not divided."""
        steps, rho = list(batches["train"]), local.momentum
        new, _, metrics = self.local_update(model, state, {"train": steps}, loss, local)
        update = tree.sub(new, model)
        tau = torch.as_tensor(num_steps(steps)).double()  # near rho = 1 the formula leaves no digit of float32
        norm = ((tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)).to(update[loss.trainable[0]])
        divided = {k: x / norm if k in loss.trainable else x for k, x in update.items()}
        return divided, state, metrics, {"steps": {"norm": norm}}

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        """A step along the mean of normalised updates, as long as the mean number of steps."""
        return tree.add(model, pooled.model, self.server_lr * pooled.payload["steps"]["norm"])
