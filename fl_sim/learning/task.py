"""A task: tensors, a loss and metrics, for images, regression and sequences. No data set is named here.

Legend: N samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.measures import IGNORED, ClassAxis, SampleFunction, accuracy, cross_entropy
from fl_sim.learning.sets.set_metrics import SetMetric
from fl_sim.learning.transform import Transform
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Task:
    """What is learnt. ``train`` and ``test`` are trees of tensors, at least ``x`` and ``y``, with a leading axis N."""

    name: str
    train: Tree
    """All training samples of all clients: uint8 or float inputs ``x``, targets ``y``. Shared and never modified."""
    test: Tree
    """Central test samples; an empty tree if the task has none."""
    outputs: int
    """Size of the model's output: number of classes, or dimension of the target."""
    loss: SampleFunction = cross_entropy
    """The loss of each sample."""
    metrics: Mapping[str, SampleFunction] = field(default_factory=dict)
    """Further functions by name, reported as means over samples, such as ``accuracy`` in classification."""
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)
    """Metrics of a set as a whole by name, such as F1: of the central sets, and of each client's held-out part."""
    transform: Callable[[Tree, Tensor | None], Tree] = field(default_factory=Transform)
    """From stored samples to model inputs: ``(batch, words of a random key, or None in evaluation) -> batch``."""
    labels: np.ndarray | None = None
    """(N,) class of each training sample, used by partitions by label; None for regression."""
    clients: np.ndarray | None = None
    """(N,) id, from 0 on, of the natural client (a writer, a role) of each training sample; None if there are none."""
    class_axis: ClassAxis = "auto"
    """For outputs with more axes than (B, K): 1 for (B, K, ...) as in PyTorch, -1 for (B, ..., K). auto: by shapes."""
    ignore_index: int | None = None
    """A label that counts neither in the loss nor in a metric, nor in their denominators. None: no label is ignored;
    with ``cross_entropy`` or ``accuracy`` -100, as in PyTorch, where y holds it.

    A loss of your own that gives one number a sample then gives the mean over the sample's labels that count, and 0
    where none does.
    """
    client_names: np.ndarray | None = None
    """(M,) the user's own names of the natural clients 0..M-1, those without training samples too; None: the ids."""
    class_names: np.ndarray | None = None
    """(K,) the user's own names of the classes 0..K-1; None: the numbers themselves."""
    notes: tuple[str, ...] = ()
    """What was decided about the user's samples, as sentences; a run writes them into its log."""
    sample_shape: tuple[int, ...] | None = None
    """Shape of one sample after the transform, where x is what the transform looks it up by; None: x has it."""
    turns: int = 0
    """K where each natural client's samples lie in turns of K classes, which only this client numbers so (an episode of
    few-shot learning): its p-th sample is of class p mod K. Such a task has its natural clients alone. 0: in any order.
    """

    @property
    def num_train(self) -> int:
        """N, the number of training samples."""
        return len(self.train["y"])

    @property
    def num_clients(self) -> int:
        """M, the number of natural clients, those without training samples too; 0 if there are none."""
        if self.clients is None:
            return 0
        return int(self.clients.max()) + 1 if self.client_names is None else len(self.client_names)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample, as the model gets it."""
        return tuple(self.train["x"].shape[1:]) if self.sample_shape is None else self.sample_shape

    def settled(self) -> "Task":
        """The task with its ``ignore_index``: -100 where built-in functions meet that label and none is given.

        Raises ConfigError for one that no label can be, which has 64 bits.
        """
        if self.ignore_index is not None and not -(2**63) <= self.ignore_index < 2**63:
            raise ConfigError(f"task.ignore_index = {self.ignore_index}: no label is that number; labels have 64 bits")
        built_in = any(is_built_in(function) for function in (self.loss, *self.metrics.values()))
        if self.ignore_index is not None or not built_in or not holds(IGNORED, self.train, self.test):
            return self
        return replace(self, ignore_index=IGNORED)

    def bound(self) -> "Task":
        """The task, settled, whose built-in loss and metrics know ``class_axis`` and ``ignore_index``."""
        task = self.settled()
        if task.class_axis == "auto" and task.ignore_index is None:
            return task

        def bind(function: SampleFunction) -> SampleFunction:
            given = {"class_axis": task.class_axis, "ignore_index": task.ignore_index}
            return partial(function, **given) if is_built_in(function) else function

        return replace(task, loss=bind(task.loss), metrics={k: bind(f) for k, f in task.metrics.items()})

    def ready(self, dtype: torch.dtype, most_bytes: int) -> "Task":
        """The task with its samples transformed in advance instead of at each step; the results are the same.

        Returns the task unchanged if its transform draws random numbers (augmentation) or is not a ``Transform``, if
        there is nothing to transform, or if the training samples as ``dtype`` would take more than ``most_bytes``.
        """
        transform, x = self.transform, self.train["x"]
        if not isinstance(transform, Transform) or transform.augment or x.numel() * dtype.itemsize > most_bytes:
            return self
        if not (x.dtype == torch.uint8 or (x.is_floating_point() and transform != Transform())):
            return self

        def apply(samples: Tree) -> Tree:
            return transform({**samples, "x": samples["x"].to(dtype)}, None) if samples else samples

        return replace(self, train=apply(self.train), test=apply(self.test), transform=Transform())

    def subset(self, indices: np.ndarray) -> "Task":
        """The task with only the training samples at ``indices`` (n,), in that order; its clients keep their ids."""
        chosen = torch.from_numpy(np.ascontiguousarray(indices))
        train = {k: v[chosen] for k, v in self.train.items()}
        labels = None if self.labels is None else self.labels[indices]
        if self.clients is None:
            return replace(self, train=train, labels=labels)
        names = np.arange(self.num_clients) if self.client_names is None else self.client_names
        return replace(self, train=train, labels=labels, clients=self.clients[indices], client_names=names)


def is_built_in(function: object) -> bool:
    """Whether a loss or metric is one of those that have parameters for the layout of outputs and for a label."""
    return function is cross_entropy or function is accuracy


def holds(label: int, *parts: Tree) -> bool:
    """Whether the ``y`` of one of the parts is of integers and contains ``label``."""
    targets = [part["y"] for part in parts if part and isinstance(part.get("y"), Tensor)]
    return any(bool((y == label).any()) for y in targets if not y.is_floating_point())
