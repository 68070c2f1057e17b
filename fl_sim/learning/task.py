"""A task: tensors, a loss, metrics. Images, regression and sequences alike; names no data set.

Legend: N samples, B batch, K classes, T steps of a sequence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fl_sim.learning.measures import SampleFunction, cross_entropy
from fl_sim.learning.transform import Transform
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Task:
    """What is learnt. ``train`` and ``test`` are trees of tensors with a common leading axis N: at least ``x`` and ``y``."""

    name: str
    train: Tree
    """All training samples of all clients: uint8 or float inputs ``x``, targets ``y``. Shared, read-only."""
    test: Tree
    """Central test samples; an empty tree where the task has none."""
    outputs: int
    """Size of the model's output: classes, or dimensions of the target."""
    loss: SampleFunction = cross_entropy
    metrics: Mapping[str, SampleFunction] = field(default_factory=dict)
    """More numbers a sample by name, reported as means; ``accuracy`` where it means something."""
    transform: Callable[[Tree, Tensor | None], Tree] = field(default_factory=Transform)
    labels: np.ndarray | None = None
    """(N,) class of each training sample, what label partitions divide; None for regression."""
    clients: np.ndarray | None = None
    """(N,) id 0..C-1 of each training sample's natural client (a writer, a role); None where there is none."""

    @property
    def num_train(self) -> int:
        """N of the training samples."""
        return len(self.train["y"])

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample's x."""
        return tuple(self.train["x"].shape[1:])

    def ready(self, dtype: torch.dtype, most_bytes: int) -> "Task":
        """The task with its samples transformed once and for all, instead of at each step: same numbers, no work.

        Only where nothing is drawn (no augmentation) and the samples as ``dtype`` take ``most_bytes`` at most; else as it is.
        """
        made, x = self.transform, self.train["x"]
        if not isinstance(made, Transform) or made.augment or x.numel() * dtype.itemsize > most_bytes:
            return self
        if not (x.dtype == torch.uint8 or (x.is_floating_point() and made != Transform())):
            return self

        def apply(samples: Tree) -> Tree:
            return made({**samples, "x": samples["x"].to(dtype)}, None) if samples else samples

        return replace(self, train=apply(self.train), test=apply(self.test), transform=Transform())

    def subset(self, indices: np.ndarray) -> "Task":
        """The task on some of its training samples (N',), in the order given."""
        chosen = torch.from_numpy(np.ascontiguousarray(indices))
        pick = {k: v[chosen] for k, v in self.train.items()}
        labels = None if self.labels is None else self.labels[indices]
        clients = None if self.clients is None else np.unique(self.clients[indices], return_inverse=True)[1]
        return replace(self, train=pick, labels=labels, clients=clients)
