"""Central evaluation of the global model, cut into blocks of a fixed size so that its bits depend on nothing else. No paper."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.learning.loss import Batch, Loss
from fl_sim.tree import Tree

BLOCK = 500
"""Samples a block."""


def evaluate(loss: Loss, model: Tree, data: Tree, recorder: GraphRecorder | None = None) -> dict[str, float]:
    """Mean loss and metrics over all samples of ``data``, in evaluation mode; {} where there are none.

    On a GPU all blocks are asked for before one is waited for, and with a ``recorder`` replayed from the third time on.
    """
    total = len(data["y"]) if data else 0
    starts, names = range(0, total, BLOCK), list[str]()
    if not total:
        return {}

    def all_blocks(*leaves: Tensor) -> tuple[Tensor, ...]:
        blocks = [_means(loss, dict(zip(model, leaves, strict=True)), data, start) for start in starts]
        names[:] = blocks[0]
        return tuple(torch.stack([block[name] for block in blocks]) for name in names)

    leaves = [v.to(loss.device) for v in model.values()]
    if recorder is None or not recorder.takes(loss.device):
        columns = all_blocks(*leaves)
    else:
        shapes = tuple((k, v.shape, v.dtype) for k, v in zip(model, leaves, strict=True))
        columns = recorder((shapes, tuple((k, v.data_ptr()) for k, v in data.items())), all_blocks, leaves, names)
    sizes = [min(BLOCK, total - start) for start in starts]
    found = {name: column.tolist() for name, column in zip(names, columns, strict=True)}
    return means(({name: mean[i] * size for name, mean in found.items()} for i, size in enumerate(sizes)), total)


def block_sums(loss: Loss, model: Tree, data: Tree, start: int) -> dict[str, float]:
    """Loss and metrics summed over the block of ``data`` that begins at sample ``start``; ``model`` is on the loss's device."""
    size = min(BLOCK, len(data["y"]) - start)
    return {name: float(mean) * size for name, mean in _means(loss, model, data, start).items()}


def _means(loss: Loss, model: Tree, data: Tree, start: int) -> Tree:
    rows = {k: v[start : start + BLOCK].to(loss.device) for k, v in data.items()}
    with torch.no_grad():
        return loss.metrics(model, Batch(rows, torch.zeros(2, dtype=torch.int32, device=loss.device)))


def means(blocks: Iterable[dict[str, float]], total: int) -> dict[str, float]:
    """Sums of blocks, in their order, over ``total`` samples."""
    sums: dict[str, float] = {}
    for block in blocks:
        for name, value in block.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / total for name, value in sums.items()}
