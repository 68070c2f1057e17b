"""Losses and metrics, one number a sample.

Legend: B batch, K classes, T steps of a sequence.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from fl_sim.kernels import leave_vmap
from fl_sim.tree import Tree

SampleFunction = Callable[[Tensor, Tree], Tensor]
"""``(outputs (B, ...), batch) -> (B,)``: one number a sample; the machine takes masked means."""


def cross_entropy(outputs: Tensor, batch: Tree) -> Tensor:
    """Softmax cross-entropy, nats: outputs (B, K), y (B,) int64, or a mean over time: outputs (B, T, K), y (B, T) -> (B,)."""
    if (
        outputs.ndim == 2 and leave_vmap.is_possible()
    ):  # as one large batch: vmap takes the loss apart into a dozen operations
        return leave_vmap.call_outside_vmap(_cross_entropies, outputs, batch["y"])[0]
    if outputs.ndim == 2:
        return _cross_entropy(outputs, batch["y"])
    return F.cross_entropy(outputs.movedim(-1, 1), batch["y"], reduction="none").flatten(1).mean(1)


def _cross_entropies(outputs: Tensor, y: Tensor) -> tuple[Tensor]:
    """outputs (C, B, K), y (C, B) -> (C, B)."""
    return (_cross_entropy(outputs.flatten(0, 1), y.flatten()).reshape(y.shape),)


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """outputs (B, K), y (B,) -> (B,). On a CPU many rows of few classes are taken class by class: a row alone would not fill a vector."""
    by_class = outputs.shape[1] < 16 and len(outputs) > 32 and outputs.device.type == "cpu"
    logs = outputs.t().log_softmax(0).t() if by_class else outputs.log_softmax(1)
    return F.nll_loss(logs, y, reduction="none")


def squared_error(outputs: Tensor, batch: Tree) -> Tensor:
    """Mean squared error a sample: outputs and y (B, ...) -> (B,)."""
    return (outputs - batch["y"].reshape(outputs.shape)).square().flatten(1).mean(1)


def accuracy(outputs: Tensor, batch: Tree) -> Tensor:
    """1.0 where the largest of outputs (B, K) is y (B,), else 0.0; of sequences (B, T, K), (B, T) the mean over time -> (B,)."""
    hits = (outputs.argmax(-1) == batch["y"]).to(outputs.dtype)
    return hits.flatten(1).mean(1) if hits.ndim > 1 else hits
