"""Central evaluation of the global model, cut into blocks of a fixed size so that its bits depend on nothing else. No paper."""

import torch

from fl_sim.loss import Batch, Loss
from fl_sim.tree import Tree

BLOCK = 500
"""Samples a block."""


def evaluate(loss: Loss, model: Tree, data: Tree) -> dict[str, float]:
    """Mean loss and metrics over all samples of ``data``, in evaluation mode; {} where there are none."""
    total = len(data["y"]) if data else 0
    sums: dict[str, float] = {}
    model = {k: v.to(loss.device) for k, v in model.items()}
    with torch.no_grad():
        for start in range(0, total, BLOCK):
            rows = {k: v[start : start + BLOCK].to(loss.device) for k, v in data.items()}
            batch = Batch(rows, torch.zeros(2, dtype=torch.int32, device=loss.device))
            for name, mean in loss.metrics(model, batch).items():
                sums[name] = sums.get(name, 0.0) + float(mean) * len(rows["y"])
    return {name: value / total for name, value in sums.items()}
