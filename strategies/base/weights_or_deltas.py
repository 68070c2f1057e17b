"""What is pooled: the clients' models, or their changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Metrics
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


@dataclass
class WeightsOrDeltas(Strategy):
    """FedAvg's local training, whose reply is the new model, or its change.

    weights: w <- w + lr (pooled - w);     deltas: w <- w + lr pooled
    """

    of: Literal["weights", "deltas"] = "weights"
    """What is pooled: models, or updates."""

    def __post_init__(self) -> None:
        self.reply_kind = "update" if self.of == "deltas" else "weights"

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """Toward the pooled model, or along the pooled update."""
        return (
            tree.add(model, pooled, self.server_lr) if self.of == "deltas" else tree.lerp(model, pooled, self.server_lr)
        )

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's local training; replies with the new model, or with its change."""
        new, state, metrics = super().local_update(model, state, batches, loss, local)
        return (tree.sub(new, model) if self.of == "deltas" else new), state, metrics
