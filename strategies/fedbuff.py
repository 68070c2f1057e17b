"""FedBuff: the server steps with the mean of a buffer of K updates, each weighted down by its staleness.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated Learning with Buffered Asynchronous Aggregation",
AISTATS 2022, arXiv:2106.06639, algorithm 1 and section 5.

    client:  FedAvg's local training, which gives delta_i = w_i - w_start
    server:  Delta = (1 / K) sum_i s_i delta_i,   s_i = 1 / sqrt(1 + d_i),   d = server steps since the client's start
             m <- beta m + Delta;   w <- w + lr m
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Metrics
from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived, Asynchronous


@dataclass
class FedBuff(Asynchronous):
    """Buffered asynchronous aggregation; clients are not weighted by their examples."""

    buffer: Annotated[int, Ge(1)] = 10
    """K: replies that a server step takes."""
    beta: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Momentum of the server."""
    reply_kind = "update"

    @property
    def replies_a_step(self) -> int:
        """K."""
        return self.buffer

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """One step along the mean update, with momentum."""
        total = tree.zeros(model)
        for one in arrived:
            total = tree.add(total, one.reply, (1 + one.staleness) ** -0.5)
        delta = tree.scale(total, 1 / len(arrived))
        if self.beta:
            old = self.server_state.get("momentum")
            delta = delta if old is None else tree.add(delta, old, self.beta)
            self.server_state = {"momentum": delta}
        return tree.add(model, delta, self.server_lr)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's local training; replies with the change of the model."""
        new, state, metrics = super().local_update(model, state, batches, loss, local)
        return tree.sub(new, model), state, metrics
