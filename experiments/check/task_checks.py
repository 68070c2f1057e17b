"""The contract of tasks as checks that raise AssertionError with a reason: their samples, their loss, their metrics.

``python -m experiments.check FILE`` runs them on the tasks of a user's own file, the tests on all of this project's.

Legend: N samples, C clients, K outputs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.check.places import defined_at, written_by
from fl_sim import Task, rng, tree
from fl_sim.errors import ConfigError
from fl_sim.kernels.in_place import copied
from fl_sim.learning.measures import cross_entropy
from fl_sim.learning.trials.sample_numbers import checked
from fl_sim.tree import Tree

MakeTask = Callable[..., Task]


def check_task_is_whole(make: MakeTask) -> None:
    """x, y, labels and natural clients have one length; no NaN; the test set has the same form; classes are below K."""
    task = make()
    assert isinstance(task, Task), f"returned {type(task).__name__}, must be a fl_sim.Task"
    for part in (task.train, task.test):
        assert not part or {"x", "y"} <= set(part), f"has {sorted(part)}, must have x and y"
        assert len({len(v) for v in part.values()}) <= 1, f"unequal lengths: { {k: len(v) for k, v in part.items()} }"
        for name, value in part.items():
            like = task.train[name]
            assert (value.shape[1:], value.dtype) == (like.shape[1:], like.dtype), (
                f"test {name} is not like training {name}"
            )
            assert not value.is_floating_point() or bool(torch.isfinite(value).all()), f"{name} holds NaN or infinity"
    assert task.num_train > 0, "no training samples"
    for name, values in (("labels", task.labels), ("clients", task.clients)):
        assert values is None or len(values) == task.num_train, (
            f"{name}: {len(values)} of them, {task.num_train} samples"
        )
    if task.clients is not None:
        known = np.unique(task.clients)
        if task.client_names is None:
            assert np.array_equal(known, np.arange(len(known))), "clients must be numbered 0..C-1, none empty"
        assert known[0] >= 0 and known[-1] < task.num_clients, "clients must be places in client_names"
    if task.loss is cross_entropy:
        largest = max(int(part["y"].max()) for part in (task.train, task.test) if part)
        assert largest < task.outputs, f"outputs = {task.outputs}, but y goes up to {largest}"


def check_task_is_deterministic(make: MakeTask) -> None:
    """Two calls give the same samples."""
    digests = [[tree.digest(part) for part in (task.train, task.test)] for task in (make(), make())]
    assert digests[0] == digests[1], "two calls give different samples"


def _samples(task: Task, count: int, dtype: torch.dtype = torch.float64) -> Tree:
    """``count`` training samples from all over the set, or all; inputs in ``dtype``."""
    rows = torch.linspace(0, task.num_train - 1, min(count, task.num_train)).long()
    data = {k: v[rows] for k, v in task.train.items()}
    return {k: v.to(dtype) if v.is_floating_point() or v.dtype == torch.uint8 else v for k, v in data.items()}


def _functions(task: Task) -> dict[str, Any]:
    bound = task.bound()
    return {"loss": bound.loss, **bound.metrics}


def _outputs(task: Task, y: torch.Tensor) -> torch.Tensor:
    """Outputs of zero for targets ``y`` (B, ...): (B, K), with an axis for each further one of classes."""
    outputs = torch.zeros(len(y), task.outputs, *(() if y.is_floating_point() else y.shape[1:]), dtype=torch.float64)
    return outputs.movedim(1, -1) if task.class_axis == -1 else outputs


def check_task_counts_samples_singly(make: MakeTask) -> None:
    """Loss and metrics give a number for each sample, or a mean; a sample's transform does not depend on the others."""
    task = make()
    data, words = _samples(task, 6), rng.words(rng.key(0, "contract-task"))
    for key in (words, None):
        whole, half = (task.transform({k: v[:n] for k, v in data.items()}, key)["x"] for n in (6, 3))
        assert torch.allclose(whole[:3], half), "transform: a sample's result depends on how many are in its batch"
    outputs = _outputs(task, data["y"])
    for name, function in _functions(task).items():
        values = function(outputs.clone(), task.transform(copied(data), None))
        at = defined_at(function)
        try:
            checked(name, values, 6, data["y"])
        except ConfigError as error:
            raise AssertionError(f"{error}{at}") from error
        assert bool(torch.isfinite(values).all()), f"{name} of outputs of zero is not finite{at}"


def check_task_measures_all_outputs(make: MakeTask) -> None:
    """The loss of small and of large outputs is finite, and so is its gradient; no metric of them is NaN."""
    task = make()
    data = task.transform(_samples(task, 64, torch.float32), None)
    zeros = _outputs(task, data["y"])
    draws = torch.from_numpy(rng.generator(rng.key(0, "contract-task")).normal(size=tuple(zeros.shape))).sign().float()
    for size in (1.0, 60.0):  # exp(-120) is 0 in float32, exp(60) is finite
        outputs = (size * draws).requires_grad_()
        for name, function in _functions(task).items():
            values, what = function(outputs.clone(), dict(data)), f"{name} of outputs of +-{size:g}"
            at = defined_at(function)
            if not isinstance(values, torch.Tensor):  # the check before this one says so
                continue
            assert not bool(values.isnan().any()), f"{what} is NaN{at}"
            if name == "loss":
                [slope] = torch.autograd.grad(values.sum(), outputs)
                assert bool(torch.isfinite(values).all()), f"{what} is not finite{at}"
                assert bool(torch.isfinite(slope).all()), f"the gradient of {what} is not finite{at}"


def check_task_writes_into_nothing(make: MakeTask) -> None:
    """Transform, loss and metrics leave samples and outputs as they are; those that do not make every step copy."""
    task = make()
    data = _samples(task, 6)
    for key in (rng.words(rng.key(0, "contract-task")), None):
        written = written_by(partial(task.transform, data, key), data, task.transform)
        assert not written, f"transform writes into {written}"
    for name, function in _functions(task).items():
        own = task.transform(_samples(task, 6), None)
        outputs = _outputs(task, own["y"])
        written = written_by(partial(function, outputs, own), {"outputs": outputs, **own}, function)
        assert not written, f"{name} writes into {written}"


TASK_CHECKS: list[Callable[[Any], None]] = [
    check_task_is_whole,
    check_task_is_deterministic,
    check_task_counts_samples_singly,
    check_task_measures_all_outputs,
    check_task_writes_into_nothing,
]
