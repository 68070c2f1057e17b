"""Metrics of a whole set of samples together, such as F1 or a confusion matrix: they are no means over samples.

A set metric is fed a set's outputs block by block, in block order. The metrics that this project offers by name are in
``fl_sim.learning.sets.class_metrics``; here are their base class and the wrappers of a user's functions and objects.

Legend: N samples of the set, B samples of a block.
"""

import copy
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl_sim.errors import ConfigError

SetFunction = Callable[[Tensor, Tensor], object]
"""``(outputs (N, ...), targets (N, ...)) -> number, vector or matrix`` of all samples of a set, on the CPU."""


class SetMetric(ABC):
    """One metric over a set: ``fresh()``, then ``update`` for each block, then ``compute``."""

    by_class: bool = False
    """Whether ``update`` gets one row of scores (n, K) and one class (n,) for each label, instead of the blocks."""
    takes_softmax: bool = False
    """Whether a softmax is applied to the scores, which must then be none already."""
    needs_torchmetrics: bool = False

    def fresh(self) -> "SetMetric":
        """A copy that has seen no samples."""
        return copy.deepcopy(self)

    def bytes_kept(self, outputs: Tensor, targets: Tensor) -> int:
        """Bytes that are kept of a block (B, ...) until ``compute``; 0 where the state does not grow, or is unknown."""
        return 0

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in a block's outputs (B, ...) and targets (B, ...), on the CPU; they may be written to."""

    @abstractmethod
    def compute(self) -> object:
        """The value over all blocks so far (at least one sample): what ``as_numbers`` takes."""


class OfFunction(SetMetric):
    """A user's function of all outputs and targets, which are kept until the last block."""

    def __init__(self, function: SetFunction) -> None:
        self.function = function
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def fresh(self) -> "OfFunction":
        """The same function, with no samples."""
        return OfFunction(self.function)

    def bytes_kept(self, outputs: Tensor, targets: Tensor) -> int:
        """All of them."""
        return sum(x.numel() * x.element_size() for x in (outputs, targets))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep a block."""
        self.outputs.append(outputs)
        self.targets.append(targets)

    def compute(self) -> object:
        """The function's result."""
        return self.function(torch.cat(self.outputs), torch.cat(self.targets))


class OfObject(SetMetric):
    """A user's object with ``reset``, ``update(outputs, targets)`` and ``compute``, as torchmetrics' are.

    The user's own object is copied and never updated.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric

    def fresh(self) -> "OfObject":
        """A copy of the object, reset."""
        own = copy.deepcopy(self.metric)
        own.reset()
        return OfObject(own)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Update the object with a block."""
        self.metric.update(outputs, targets)

    def compute(self) -> object:
        """The object's result."""
        return self.metric.compute()


def own_metric(name: str, given: object) -> SetMetric:
    """A user's function or object as a SetMetric. Raises ConfigError for anything else."""
    if isinstance(given, SetMetric):
        return given
    if not isinstance(given, type):
        if all(callable(getattr(given, part, None)) for part in ("reset", "update", "compute")):
            return OfObject(given)
        if callable(given):
            return OfFunction(given)
    expected = "a function of (outputs, targets), or an object with reset, update and compute (torchmetrics)"
    cure = "; make an object of it" if isinstance(given, type) else ""
    raise ConfigError(f"set_metrics[{name!r}] = {given!r}: must be {expected}{cure}")


def as_numbers(value: object) -> Tensor:
    """A metric's result on the CPU as int64 or float64: (), (n,) or (m, n). None becomes NaN, which means undefined.

    Raises ConfigError for what is no number and no tensor or array of at most two axes.
    """
    if value is None:
        return torch.tensor(torch.nan, dtype=torch.float64)
    if isinstance(value, (Tensor, np.ndarray, numbers.Real)):
        try:
            result = torch.as_tensor(value).detach().cpu()
        except TypeError:  # an array of objects
            result = torch.empty((1, 1, 1))
        if result.ndim <= 2 and not result.is_complex():
            return result.double() if result.is_floating_point() else result.long()
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, (Tensor, np.ndarray)) else ""
    expected = "a number, or a tensor with one or two axes; None or NaN where it is undefined"
    raise ConfigError(f"it gives {type(value).__name__}{shape}; it must give {expected}")
