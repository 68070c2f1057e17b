"""The values of a task's set metrics over one set of samples.

Legend: N samples of the set, B samples of a block, n labels, K classes.
"""

from collections.abc import Iterable

from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.measures import class_axis_of, named
from fl_sim.learning.sets.class_metrics import UNDEFINED
from fl_sim.learning.sets.set_metrics import as_numbers
from fl_sim.learning.task import Task


def set_values(task: Task, blocks: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The value of each of ``task.set_metrics`` by name: on the CPU, (), (m,) or (m, k); NaN where undefined.

    Where the blocks hold no label that counts, every value is a single NaN.

    Parameters
    ----------
    task : Task
        Its set metrics, and what its outputs and labels mean.
    blocks : iterable of (Tensor, Tensor)
        The model's outputs (B, ...) and the targets (B, ...) of each block, in order, without padding. Metrics get
        copies.

    Raises
    ------
    MeasureFailed
        Where a metric raises; it is named.
    """
    running = {name: metric.fresh() for name, metric in task.set_metrics.items()}
    labels = 0
    for outputs, targets in blocks:
        counting = targets.numel() if task.ignore_index is None else int((targets != task.ignore_index).sum())
        labels += counting
        for name, metric in running.items() if counting else ():
            with named(f"set metric {name!r}", outputs, targets):
                metric.update(*rows_of(task, _copied(outputs), _copied(targets), metric.by_class))
    if not labels:
        return dict.fromkeys(running, UNDEFINED)
    values = {}
    for name, metric in running.items():
        with named(f"set metric {name!r}", outputs, targets):
            values[name] = as_numbers(metric.compute())
    return values


def _copied(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True)


def rows_of(task: Task, outputs: Tensor, targets: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """What a metric's ``update`` gets of a block.

    Outputs and targets as they are, unless the metric is one ``by_class`` or the task has an ``ignore_index``: then one
    row of scores for each label that counts, (n, K) with (n,); K is 1 where the model has one output.

    Raises ConfigError where the labels are no classes.
    """
    if not by_class and task.ignore_index is None:
        return outputs, targets
    labels = targets.flatten()
    if task.outputs == 1:
        scores = outputs.reshape(len(labels), 1)
    else:
        last = class_axis_of(outputs, targets, task.class_axis) == -1
        scores = (outputs if last else outputs.movedim(1, -1)).flatten(0, -2)
    if task.ignore_index is not None:
        counts = labels != task.ignore_index
        scores, labels = scores[counts], labels[counts]
    if not by_class:
        return scores, labels
    classes = max(scores.shape[1], 2)
    wrong = (labels != labels.long()) | (labels < 0) | (labels >= classes)
    if wrong.any():
        value = labels[wrong][0].item()
        what = f"the labels hold {value:g}, where the model's {scores.shape[1]} outputs stand for 0..{classes - 1}"
        raise ConfigError(f"{what}; bring a function of your own")
    return scores, labels
