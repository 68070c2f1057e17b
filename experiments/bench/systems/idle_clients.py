"""FedAvg whose clients do nothing, to see what a round costs without them. No paper."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fl_sim import Batch, Local, Loss
from strategies.fedavg import FedAvg

Tree = dict[str, torch.Tensor]


class Nothing(FedAvg):
    """Clients send back what they got."""

    def streams(self, *_: Any) -> dict[str, Any]:
        """No batches."""
        return {"train": []}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Tree]:
        """The identity."""
        return model, state, {"loss": torch.zeros(())}
