"""Label flip: a malicious client trains as the others do, on mirrored labels.

Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
arXiv:1911.11815 (every label is flipped; Tolpegin et al., ESORICS 2020, arXiv:2007.08432, flip those of one class).

    y' = K - 1 - y    for K classes
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_sim.blocks.attack import Attack
from fl_sim.learning.task import Task, is_built_in
from fl_sim.tree import Tree


@dataclass(frozen=True)
class LabelFlip(Attack):
    """A malicious client trains on the labels classes - 1 - y; evaluations keep the true ones."""

    def problem(self, task: Task) -> str:
        """Why the labels cannot be flipped: the task has no classes, or labels that are none of them."""
        y, loss = task.train["y"], getattr(task.loss, "func", task.loss)
        if task.labels is None and not is_built_in(loss):
            return f"needs class labels, and task {task.name} has none (a regression, or targets of its own kind)"
        if y.is_floating_point() and not bool(((y == 0) | (y == 1)).all()):
            return f"needs class labels 0..K-1, and y of task {task.name} holds other numbers than 0 and 1"
        known = y[y != task.ignore_index] if task.ignore_index is not None else y
        if (
            not y.is_floating_point()
            and known.numel()
            and not 0 <= int(known.min()) <= int(known.max()) < classes(task)
        ):
            seen = f"{int(known.min())}..{int(known.max())}"
            return f"needs labels in 0..{classes(task) - 1}, and task {task.name} has {seen}"
        return ""

    def samples(self, samples: Tree, task: Task) -> Tree:
        """All training samples with flipped labels; one that counts in no loss (``task.ignore_index``) stays."""
        return {**samples, "y": flipped(samples["y"], task)}


def classes(task: Task) -> int:
    """K: a network with one output tells two classes apart."""
    return max(task.outputs, 2)


def flipped(y: Tensor, task: Task) -> Tensor:
    """K - 1 - y, of the shape and dtype of ``y``."""
    if y.dtype == torch.bool:
        return ~y
    mirrored = (1 if y.is_floating_point() else classes(task) - 1) - y
    return mirrored if task.ignore_index is None else torch.where(y == task.ignore_index, y, mirrored)
