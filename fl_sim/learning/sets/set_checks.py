"""The set metrics of a run: those that its config names and those from Python, checked before any work.

Legend: N samples of a set, B samples of the block that is tried, K classes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import MeasureFailed, squared_error
from fl_sim.learning.sets.class_metrics import OFFERED, offered
from fl_sim.learning.sets.set_metrics import SetMetric, own_metric
from fl_sim.learning.sets.set_values import rows_of, set_values
from fl_sim.learning.task import Task
from fl_sim.logs.columns import check_own
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree
from fl_sim.wire.set_records import SHAPE

LIMIT = 256 * 2**20
"""Most bytes of a set's outputs and targets that a function, or an offered metric, may keep."""
TRIED = 500
"""Most samples on which the metrics are tried."""


def names_and_own(given: object) -> tuple[str | list[str], Mapping[Any, object]]:
    """(names of offered metrics, a user's own by name) of ``run(set_metrics=given)``; one of them is empty.

    Raises ConfigError for what is neither names nor a dict.
    """
    if isinstance(given, Mapping):
        return "", given
    if given is None or isinstance(given, str):
        return given or "", {}
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return list(given), {}
    cure = "give names, 'f1,auroc' or a list of them, or a dict of functions and objects: set_metrics={'mine': f}"
    raise ConfigError(f"set_metrics = {given!r:.80}: {cure}")


def chosen_metrics(names: str, own: Mapping[Any, object], task: Task) -> dict[str, SetMetric]:
    """The set metrics by column name: those that the config names, the task's, and a user's own.

    Raises ConfigError for one that is unknown or not installed, and for a name that a column has already.
    """
    found = offered(names)
    for name, given in {**task.set_metrics, **own}.items():
        if not isinstance(name, str) or not name or name.endswith(SHAPE):
            raise ConfigError(f"set_metrics: the name {name!r} must be text, not empty, and not end with {SHAPE!r}")
        if name in found:
            raise ConfigError(f"set_metrics: {name!r} is named twice, in the config and from Python; give it once")
        found[name] = _offered_as(name, given) if isinstance(given, str) else own_metric(name, given)
    means = ("loss", *task.metrics)
    columns = [column for name in (*means, *found) for column in columns_of(name)]
    for name, metric in found.items():
        taken = [column for column in columns_of(name) if columns.count(column) > 1]
        if taken:
            raise ConfigError(f"set_metrics: {name!r}: another metric fills the column {taken[0]!r}; rename one")
        if not (name == "class_accuracy" and type(metric) is OFFERED[name]):
            check_own(columns_of(name), "rounds")
            check_own(columns_of(name), "clients")
    return found


def columns_of(name: str) -> tuple[str, ...]:
    """The columns that a metric fills: of the test, validation and training set, of clients before fine-tuning."""
    return name, f"val_{name}", f"train_set_{name}", f"{name}_before"


def _offered_as(name: str, given: str) -> SetMetric:
    if given not in OFFERED:
        raise ConfigError(f"set_metrics[{name!r}] = {given!r}: must be one of {', '.join(OFFERED)}, or a function")
    return offered(given)[given]


def check_set_metrics(
    loss: Loss, validation: Tree, partition: Partition, fine_tuning: int, more: Mapping[str, int] | None = None
) -> None:
    """Try a task's set metrics on a few samples with the initial model.

    Raises ConfigError that names the metric where one fails, gives no number, means nothing for the task, or would keep
    more than ``LIMIT`` bytes. ``fine_tuning``: steps of personal evaluation; 0: there is none.
    ``more``: the sizes of further sets by name.
    """
    task = loss.task
    if not task.set_metrics:
        return
    some = {k: v[:TRIED].to(loss.device) for k, v in (task.test or task.train).items()}
    with torch.no_grad():
        batch = Batch(some, torch.zeros(2, dtype=torch.int32, device=loss.device))
        outputs, targets = loss.evaluated(loss.initial(), batch)
    if not isinstance(outputs, Tensor):
        raise ConfigError(f"set_metrics: the model gives a {type(outputs).__name__}; they need one tensor")
    sets = {"test": len(task.test["y"]) if task.test else 0, "validation": len(validation["y"]) if validation else 0}
    sets |= more or {}
    if fine_tuning:
        sets["largest held-out"] = int(partition.size_counts()[:, 1].max())
    for name, metric in task.set_metrics.items():
        problem = _no_scores(loss, outputs, metric) if metric.by_class else ""
        if problem:
            raise ConfigError(f"set_metrics: {name!r} {problem}; leave it out, or bring a function of your own")
        try:
            rows = rows_of(task, outputs.cpu(), targets.cpu(), metric.by_class)
            alone = replace(task, set_metrics={name: metric})
            with rng.keyed_globals(0):
                once = set_values(alone, [(outputs, targets)])[name]
            with rng.keyed_globals(0):
                again = set_values(alone, [(outputs, targets)])[name]
            if not (once.shape == again.shape and torch.allclose(once.double(), again.double(), equal_nan=True)):
                cure = "keep that in an object with reset, update and compute"
                raise ConfigError(f"it gives another value when it is called again, so that it keeps something; {cure}")
        except Exception as caught:
            error = caught.__cause__ if isinstance(caught, MeasureFailed) and caught.__cause__ else caught
            tried = f"on {len(targets)} samples, outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
            why = f"{error}" if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"set_metrics: {name!r} fails {tried}: {why}") from error
        for kind, size in sets.items():
            kept = metric.bytes_kept(*rows) * size // len(targets)
            if kept > LIMIT:
                what = f"{kept / 2**20:.0f} MiB of outputs and targets of the {kind} set ({size} samples)"
                cure = "take an object with reset, update and compute, or fewer samples"
                raise ConfigError(f"set_metrics: {name!r} keeps {what}, and at most {LIMIT >> 20} fit; {cure}")


def _no_scores(loss: Loss, outputs: Tensor, metric: SetMetric) -> str:
    """Why outputs (B, ...) cannot be the scores of classes that ``metric`` takes; empty where they can.

    Probabilities of several classes have the same highest class as their scores.
    """
    if loss.task.loss is squared_error:
        return "needs classes, but the task is a regression"
    one = loss.task.outputs == 1
    if bool((outputs >= 0).all() and (outputs <= 1).all()) and (one or metric.takes_softmax):
        *_, last = (module for module in loss.training.modules() if not list(module.children()))
        if isinstance(last, nn.Sigmoid):
            return "takes scores, but the model gives probabilities (a sigmoid)"
        shares = not one and any(bool(((outputs.sum(axis) - 1).abs() < 1e-4).all()) for axis in (1, -1))
        if shares:
            return "takes scores, but the model gives probabilities (a softmax)"
    return ""
