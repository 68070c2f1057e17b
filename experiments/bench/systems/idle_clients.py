"""FedAvg whose clients do nothing, to measure what a round costs without training."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fl_sim import Batch, Local, Loss
from strategies.fedavg import FedAvg

Tree = dict[str, torch.Tensor]


class IdleClients(FedAvg):
    """FedAvg whose clients return the global model unchanged."""

    def streams(self, *_: object) -> dict[str, Any]:
        """No batches are needed."""
        return {"train": []}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Tree]:
        """Return the model as it came, with a loss of zero."""
        return model, state, {"loss": torch.zeros(())}
