"""Set metrics (``Task.set_metrics``): of the global model on a central set, and of each client's held-out samples.

Central ones are computed in the process that drives the run, in one more pass over the samples in blocks of a fixed
size, so that no engine, number of workers or size of training blocks changes a bit of them.

Legend: C clients of an outcome, B samples of a padded batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fl_sim.engines.evaluate import BLOCK, block_of, num_rows
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.sets.set_values import set_values
from fl_sim.tree import Tree
from fl_sim.wire.set_records import to_record

PARTS = {"": "set:after", "_before": "set:before"}
"""The suffix of a set metric's column -> the name under which a local rule returns a client's outputs for it."""
TARGETS, MASK = "set:targets", "set:mask"


def evaluate_sets(loss: Loss, model: Tree, data: Tree, rows: Tensor | None = None) -> dict[str, Tensor]:
    """The set metrics of a model on samples x (N, ...), y (N, ...), in evaluation mode; {} where there are none.

    ``rows`` as in ``evaluate``: the samples that count.

    Values are those of ``set_values``, from outputs in blocks of ``BLOCK`` samples, in their order.
    """
    if not loss.task.set_metrics or not num_rows(data, rows):
        return {}
    on_device = {k: v.to(loss.device) for k, v in model.items()}
    return set_values(loss.task, outputs_of(loss, on_device, data, rows))


def outputs_of(loss: Loss, model: Tree, data: Tree, rows: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The outputs (B, ...) and targets (B, ...) of each block of samples."""
    words = torch.zeros(2, dtype=torch.int32, device=loss.device)
    for start in range(0, num_rows(data, rows), BLOCK):
        samples = block_of(data, start, loss.device, rows)
        with torch.no_grad():
            yield loss.evaluated(model, Batch(samples, words))


def parts_of(loss: Loss, before: Tree, after: Tree, batch: Batch) -> Tree:
    """What a local rule returns among its metrics, so that ``client_sets`` gets it: two models' outputs of a batch.

    {} where the task has no set metrics. Runs under ``vmap``.
    """
    if not loss.task.set_metrics:
        return {}
    if not len(batch.data["y"]):
        return {TARGETS: batch.data["y"]}
    with torch.no_grad():
        first, targets = loss.evaluated(before, batch)
        parts = {PARTS["_before"]: first, PARTS[""]: loss.evaluated(after, batch)[0], TARGETS: targets}
    return parts if batch.mask is None else {**parts, MASK: batch.mask}


def split(metrics: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(a rule's metrics, the parts that ``parts_of`` put among them)."""
    parts = {k: v for k, v in metrics.items() if k in (TARGETS, MASK, *PARTS.values())}
    return {k: v for k, v in metrics.items() if k not in parts}, parts


def client_sets(loss: Loss, parts: Mapping[str, Tensor], client: int) -> dict[str, float | list[int] | list[float]]:
    """One client's set metrics, as they travel in its reply, from the stacked parts (C, B, ...) of several clients.

    Only its real samples count. ``NAME_before`` is of the model before fine-tuning.
    """
    if not parts:
        return {}
    own = {k: v[client] for k, v in parts.items()}
    real = own[MASK] if MASK in own else slice(None)
    values: dict[str, Tensor] = {}
    for suffix, part in PARTS.items():
        targets = own[TARGETS][real]
        outputs = own[part][real] if part in own else targets  # no samples at all
        values |= {f"{name}{suffix}": v for name, v in set_values(loss.task, [(outputs, targets)]).items()}
    return to_record(values)
