"""Central evaluation of global models, in blocks of a fixed size: one process and several give the same bits."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.engines.advice import ONE_VALUE, OWN_BATCH
from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.learning.loss import Batch, Loss
from fl_sim.tree import Tree

BLOCK = 500
"""Samples of a block."""
WEIGHT = "\0weight"
"""The key of a block's weight among its means, where that is not its number of samples: where labels are ignored."""
LABELS = "\0labels of "
"""With a metric's name the key of its number of labels, where its value is a count too: of ``fl_sim.accuracy``."""


def evaluate(
    loss: Loss, model: Tree, data: Tree, recorder: GraphRecorder | None = None, rows: Tensor | None = None
) -> dict[str, float]:
    """Mean loss and metrics over all samples, in evaluation mode.

    On a GPU all blocks are started before the first result is read; with a ``recorder`` they are replayed from a CUDA
    graph when the same shapes occur for the third time.

    Parameters
    ----------
    loss : Loss
        The loss, which also computes the task's metrics.
    model : Tree
        Parameters and buffers, on any device.
    data : Tree
        x (N, ...), y (N, ...), on any device; may be empty.
    recorder : GraphRecorder | None (default: None)
        Keeps CUDA graphs between calls.
    rows : Tensor | None (default: None)
        (n,) int64, beside ``data``: the samples that count, in this order; they are gathered block by block.
        None: all.

    Returns
    -------
    dict[str, float]
        By name; {} where there are no samples.
    """
    total = num_rows(data, rows)
    starts, names = range(0, total, BLOCK), list[str]()
    if not total:
        return {}

    def all_blocks(*leaves: Tensor) -> tuple[Tensor, ...]:
        blocks = [_block_means(loss, dict(zip(model, leaves, strict=True)), data, start, rows) for start in starts]
        names[:] = blocks[0]
        return tuple(torch.stack([block[name] for block in blocks]) for name in names)

    leaves = [v.to(loss.device) for v in model.values()]
    if recorder is None or not recorder.supports(loss.device):
        columns = all_blocks(*leaves)
    else:
        shapes = tuple((k, v.shape, v.dtype) for k, v in zip(model, leaves, strict=True))
        columns = recorder((shapes, tuple((k, v.data_ptr()) for k, v in data.items())), all_blocks, leaves, names)
    sizes = [min(BLOCK, total - start) for start in starts]
    by_name = {name: column.tolist() for name, column in zip(names, columns, strict=True)}
    block_means = ({name: mean[i] for name, mean in by_name.items()} for i in range(len(sizes)))
    return means((_sums(mean, size) for mean, size in zip(block_means, sizes, strict=True)), total)


def evaluate_models(
    loss: Loss, models: Sequence[Tree], data: Tree, rows: Tensor | None = None
) -> list[dict[str, float]]:
    """``evaluate`` of several models, to rounding: one pass over the samples evaluates all of them under ``vmap``.

    Where vmap cannot take the model or one of the metrics, they are evaluated one after another.
    """
    total = num_rows(data, rows)
    sums: dict[str, Tensor] = {}
    weights: Tensor | int = 0
    try:
        stacked = tree.stack([{k: v.to(loss.device) for k, v in model.items()} for model in models])
        with torch.no_grad():
            for start in range(0, total, BLOCK):
                samples = block_of(data, start, loss.device, rows)
                batch = Batch(samples, torch.zeros(2, dtype=torch.int32, device=loss.device))
                block_means = torch.func.vmap(lambda model, b=batch: _means_of(loss, model, b))(stacked)
                weight = block_means.pop(WEIGHT, len(samples["y"]))
                weights = weights + weight
                counts = _counts(block_means)
                sums = {k: sums.get(k, 0) + (v if k in counts else v.double() * weight) for k, v in block_means.items()}
    except Exception:  # vmap cannot take it; an error of the model or of a metric is raised again here
        return [evaluate(loss, model, data, rows=rows) for model in models]
    counts, total_weight = _counts(sums), weights.clamp(min=1) if isinstance(weights, Tensor) else weights
    columns = {k: (v if k in counts else v / total_weight).tolist() for k, v in sums.items()}
    return [_divided({k: v[number] for k, v in columns.items()}) for number in range(len(models))]


def num_rows(data: Tree, rows: Tensor | None = None) -> int:
    """How many samples count: all of ``data``, which may be empty, or its ``rows``."""
    return (len(data["y"]) if data else 0) if rows is None else len(rows)


def block_of(data: Tree, start: int, device: torch.device, rows: Tensor | None = None) -> Tree:
    """The block of samples that begins at sample ``start``, or at ``rows[start]``, on ``device``."""
    chosen = slice(start, start + BLOCK) if rows is None else rows[start : start + BLOCK]
    return {k: v[chosen].to(device) for k, v in data.items()}


def block_sums(loss: Loss, model: Tree, data: Tree, start: int, rows: Tensor | None = None) -> dict[str, float]:
    """Loss and metrics summed over the block that begins at ``start``; ``model`` is on the loss's device.

    A metric that is ``fl_sim.accuracy`` has two whole numbers: how many labels are right, and how many there are.
    """
    size = min(BLOCK, num_rows(data, rows) - start)
    return _sums({name: float(mean) for name, mean in _block_means(loss, model, data, start, rows).items()}, size)


def _block_means(loss: Loss, model: Tree, data: Tree, start: int, rows: Tensor | None = None) -> Tree:
    samples = block_of(data, start, loss.device, rows)
    try:
        with torch.no_grad():
            return _means_of(loss, model, Batch(samples, torch.zeros(2, dtype=torch.int32, device=loss.device)))
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise ValueError(
            f"{error}: {num_rows(data, rows)} samples are evaluated {BLOCK} at a time; {OWN_BATCH}"
        ) from error


def _means_of(loss: Loss, model: Tree, batch: Batch) -> Tree:
    """Loss and metrics of a block, or their counts, and its weight where that is not its number of samples."""
    block_means, weight, counts = loss.weighted_metrics(model, batch)
    block_means |= {name: count.right for name, count in counts.items()}
    block_means |= {LABELS + name: count.labels for name, count in counts.items()}
    return {**block_means, WEIGHT: weight.double()} if isinstance(weight, Tensor) else block_means


def _counts(names: Mapping[str, object]) -> set[str]:
    """Which of the names are those of whole numbers."""
    return {own for name in names if name.startswith(LABELS) for own in (name, name.removeprefix(LABELS))}


def _sums(block_means: dict[str, float], size: int) -> dict[str, float]:
    """The means of a block of ``size`` samples, times its weight; counts, and the weight itself, stay."""
    weight, whole = block_means.get(WEIGHT, size), {WEIGHT, *_counts(block_means)}
    return {name: value if name in whole else value * weight for name, value in block_means.items()}


def means(blocks: Iterable[dict[str, float]], total: int) -> dict[str, float]:
    """The sums of blocks, added in their order and divided by ``total`` samples, or by the sum of their weights.

    An accuracy is the quotient of its counts.
    """
    sums: dict[str, float] = {}
    for block in blocks:
        for name, value in block.items():
            sums[name] = sums.get(name, 0) + value
    weight, counts = max(sums.pop(WEIGHT, total), 1), _counts(sums)
    return _divided({name: value if name in counts else value / weight for name, value in sums.items()})


def _divided(numbers: dict[str, float]) -> dict[str, float]:
    """Two counts become their quotient, which is the float nearest to the fraction; 0 where there is no label."""
    counts = {name: numbers[LABELS + name] for name in numbers if LABELS + name in numbers}
    exact = {name: numbers[name] / max(labels, 1) for name, labels in counts.items()}
    return {name: exact.get(name, value) for name, value in numbers.items() if not name.startswith(LABELS)}
