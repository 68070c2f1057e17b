"""Central evaluation of the global model, cut into blocks of a fixed size so that its bits depend on nothing else. No paper."""

from collections.abc import Iterable

import torch

from fl_sim.loss import Batch, Loss
from fl_sim.tree import Tree

BLOCK = 500
"""Samples a block."""


def evaluate(loss: Loss, model: Tree, data: Tree) -> dict[str, float]:
    """Mean loss and metrics over all samples of ``data``, in evaluation mode; {} where there are none."""
    total = len(data["y"]) if data else 0
    model = {k: v.to(loss.device) for k, v in model.items()}
    starts = range(0, total, BLOCK)
    blocks = [_means(loss, model, data, start) for start in starts]  # a GPU is not waited for until all is asked
    return means((_sums(block, min(BLOCK, total - start)) for block, start in zip(blocks, starts, strict=True)), total)


def block_sums(loss: Loss, model: Tree, data: Tree, start: int) -> dict[str, float]:
    """Loss and metrics summed over the block of ``data`` that begins at sample ``start``; ``model`` is on the loss's device."""
    return _sums(_means(loss, model, data, start), min(BLOCK, len(data["y"]) - start))


def _means(loss: Loss, model: Tree, data: Tree, start: int) -> Tree:
    rows = {k: v[start : start + BLOCK].to(loss.device) for k, v in data.items()}
    with torch.no_grad():
        return loss.metrics(model, Batch(rows, torch.zeros(2, dtype=torch.int32, device=loss.device)))


def _sums(block: Tree, samples: int) -> dict[str, float]:
    return {name: float(mean) * samples for name, mean in block.items()}


def means(blocks: Iterable[dict[str, float]], total: int) -> dict[str, float]:
    """Sums of blocks, in their order, over ``total`` samples."""
    sums: dict[str, float] = {}
    for block in blocks:
        for name, value in block.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / total for name, value in sums.items()}
