"""Losses and metrics that give one number per sample.

Legend: C clients, B batch size, K classes, T steps of a sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.kernels import leave_vmap
from fl_sim.kernels import outputs as nested
from fl_sim.tree import Tree

SampleFunction = Callable[[Tensor, Tree], Tensor]
"""``(outputs (B, ...), batch) -> (B,)``: one number per sample. Means over the samples are taken by the caller.

A scalar mean over the batch, (), is accepted too; batches are then never padded, so that the run is on the loop engine.
"""
ClassAxis = Literal["auto", 1, -1]
"""Where the classes of outputs are that have more axes than (B, K): 1 as in PyTorch, (B, K, ...); -1: (B, ..., K)."""
IGNORED = -100
"""The label that PyTorch's cross-entropy leaves out."""


def check_functions(loss: object, metrics: object) -> None:
    """Raise ConfigError unless ``loss`` is a function and ``metrics`` a dict of functions, or either is None."""
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        cure = "give a function (outputs, batch) -> (B,), such as fl_sim.cross_entropy"
        raise ConfigError(f"loss = {loss!r:.80}: {_kind(loss)}, no function; {cure}")
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        cure = "give a dict of functions by name: metrics={'hits': f}"
        raise ConfigError(f"metrics = {metrics!r:.80}: {_kind(metrics)}, no dict; {cure}")
    for name, function in metrics.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"metrics: the name {name!r} must be text, and not empty")
        if all(callable(getattr(function, part, None)) for part in ("reset", "update", "compute")):
            what = f"metrics[{name!r}] = {function!r:.80}: an object with reset, update and compute"
            raise ConfigError(f"{what}, which measures a whole set; give it in set_metrics={{{name!r}: ...}}")
        if isinstance(function, type) or not callable(function):
            cure = "give a function (outputs, batch) -> (B,), such as fl_sim.accuracy"
            raise ConfigError(f"metrics[{name!r}] = {function!r:.80}: {_kind(function)}, no function; {cure}")


def _kind(given: object) -> str:
    name = type(given).__name__
    return "a class" if isinstance(given, type) else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def cross_entropy(
    outputs: Tensor, batch: Tree, class_axis: ClassAxis = "auto", ignore_index: int | None = None
) -> Tensor:
    """Softmax cross-entropy in nats, (B,): for sequences and pictures the mean over a sample's labels.

    Parameters
    ----------
    outputs : Tensor
        (B, K); with several labels a sample (B, K, ...) as in PyTorch, or (B, ..., K).
    batch : Tree
        ``y`` int64: (B,), or (B, ...) with several labels a sample.
    class_axis : "auto", 1 or -1 (default: "auto")
        The axis of the classes; ``auto`` infers it from the shapes.
    ignore_index : int, optional
        A label that does not count: a sample's mean is over its other labels, 0 where there is none.

    Raises
    ------
    ConfigError
        If the shapes do not fit, or ``auto`` fits both axes.
    """
    y = batch["y"]
    if outputs.ndim == 2 and y.ndim == 1:
        if leave_vmap.is_possible():
            # vmap would split the loss into a dozen operations; outside of it, all clients form one large batch.
            together = partial(_cross_entropies, ignore_index=ignore_index)
            return leave_vmap.call_outside_vmap(together, outputs, y)[0]
        return _cross_entropy(outputs, y, ignore_index)
    scores = outputs if class_axis_of(outputs, y, class_axis) == 1 else outputs.movedim(-1, 1)
    losses = F.cross_entropy(scores, y, reduction="none", ignore_index=_or_pytorchs(ignore_index))
    return _mean_of_labels(losses, y, ignore_index)


def _cross_entropies(outputs: Tensor, y: Tensor, ignore_index: int | None) -> tuple[Tensor]:
    """Cross-entropy of several clients: outputs (C, B, K), y (C, B) -> (C, B)."""
    return (_cross_entropy(outputs.flatten(0, 1), y.flatten(), ignore_index).reshape(y.shape),)


def _cross_entropy(outputs: Tensor, y: Tensor, ignore_index: int | None) -> Tensor:
    """Cross-entropy of outputs (B, K), y (B,) -> (B,).

    On a CPU, many rows of few classes are computed along the other axis: a single row would not fill a vector register.
    """
    by_class = outputs.shape[1] < 16 and len(outputs) > 32 and outputs.device.type == "cpu"
    logs = outputs.t().log_softmax(0).t() if by_class else outputs.log_softmax(1)
    return F.nll_loss(logs, y, reduction="none", ignore_index=_or_pytorchs(ignore_index))


def _or_pytorchs(ignore_index: int | None) -> int:
    return IGNORED if ignore_index is None else ignore_index


def squared_error(outputs: Tensor, batch: Tree) -> Tensor:
    """Mean squared error of each sample: outputs and y (B, ...) -> (B,).

    An axis of one number, as in y (B, 1), may be missing in either; numbers of a sample may be flat, (B, n), in either.
    Raises ConfigError for other shapes, which would be compared in the wrong order.
    """
    y = batch["y"]
    if outputs.shape != y.shape:
        shapes = [[size for size in x.shape[1:] if size != 1] for x in (outputs, y)]
        if (
            len(y) != len(outputs)
            or y.numel() != outputs.numel()
            or (shapes[0] != shapes[1] and min(map(len, shapes)) > 1)
        ):
            raise ConfigError(
                f"outputs have shape {tuple(outputs.shape)}, y has {tuple(y.shape)}: "
                "squared_error compares equal shapes; reshape the model's outputs, or give a loss of your own"
            )
        y = y.reshape(outputs.shape)
    squares = (outputs - y).square()
    return squares if squares.ndim == 1 else squares.flatten(1).mean(1)


def accuracy(outputs: Tensor, batch: Tree, class_axis: ClassAxis = "auto", ignore_index: int | None = None) -> Tensor:
    """1.0 where the largest of the outputs (B, K) is at y (B,), else 0.0; (B,).

    With several labels a sample the mean over them; shapes, parameters and errors are those of ``cross_entropy``.
    """
    right = _right(outputs, batch["y"], class_axis, ignore_index)
    return _mean_of_labels(right.to(outputs.dtype), batch["y"], ignore_index)


def hits(outputs: Tensor, batch: Tree, class_axis: ClassAxis = "auto", ignore_index: int | None = None) -> Tensor:
    """How many labels of each sample are predicted right, (B,) int64; parameters and errors are ``accuracy``'s."""
    right = _right(outputs, batch["y"], class_axis, ignore_index)
    return right.long() if right.ndim == 1 else right.flatten(1).sum(1)


def _right(outputs: Tensor, y: Tensor, class_axis: ClassAxis, ignore_index: int | None) -> Tensor:
    """Whether the largest of the outputs is at a label, bool of y's shape; False at a label that is ignored."""
    axis = -1 if outputs.ndim == 2 and y.ndim == 1 else class_axis_of(outputs, y, class_axis)
    right = outputs.argmax(axis) == y
    return right if ignore_index is None else right & (y != ignore_index)


def countable(metrics: Mapping[str, SampleFunction], ignore_index: int | None) -> dict[str, SampleFunction]:
    """Name -> ``hits`` for each of the metrics that is ``accuracy``, so that its labels can be counted."""
    found: dict[str, SampleFunction] = {}
    for name, function in metrics.items():
        bound = function if isinstance(function, partial) and not function.args else partial(function)
        if bound.func is accuracy and bound.keywords.get("ignore_index") == ignore_index:
            found[name] = partial(hits, **bound.keywords)
    return found


def _mean_of_labels(values: Tensor, y: Tensor, ignore_index: int | None) -> Tensor:
    """Values of all labels (B, ...), 0 where a label is ignored -> the mean over each sample's other labels, (B,)."""
    if values.ndim == 1:
        return values
    if ignore_index is None:
        return values.flatten(1).mean(1)
    return values.flatten(1).sum(1) / counted(y, ignore_index).clamp(min=1)


def counted(y: Tensor, ignore_index: int) -> Tensor:
    """y (B, ...) -> how many labels of each sample count, that is differ from ``ignore_index``: (B,) int64."""
    return (y != ignore_index).long() if y.ndim == 1 else (y != ignore_index).flatten(1).sum(1)


def class_axis_of(outputs: Tensor, y: Tensor, class_axis: ClassAxis = "auto") -> Literal[1, -1]:
    """The axis of ``outputs`` that holds the classes, where ``y`` holds one class for each place of the other axes.

    Raises ConfigError where no axis fits, where the axis that ``class_axis`` names does not, and where ``auto`` cannot
    tell, because both fit.
    """
    rest = {1: (*outputs.shape[:1], *outputs.shape[2:]), -1: tuple(outputs.shape[:-1])}
    fits = {axis: outputs.ndim > 1 and shape == tuple(y.shape) for axis, shape in rest.items()}
    seen = f"outputs have shape {tuple(outputs.shape)}, y has {tuple(y.shape)}"
    if class_axis == "auto" and all(fits.values()) and outputs.ndim > 2:
        cure = "set task.class_axis = 1 for (B, K, ...), as in PyTorch, or -1 for (B, ..., K)"
        raise ConfigError(f"task.class_axis = 'auto': {seen}: the classes may lie on axis 1 or on the last; {cure}")
    if fits[1] and class_axis != -1:
        return 1
    if fits[-1] and class_axis != 1:
        return -1
    needs = "y must have outputs' shape without the axis of the classes, such as (B,) for outputs (B, K)"
    raise ConfigError(f"task.class_axis = {class_axis!r}: {seen}; {needs}")


class MeasureFailed(RuntimeError):
    """A loss, metric or set metric raised; ``__cause__`` is its own error."""


@contextmanager
def named(what: str, outputs: Any, targets: Tensor) -> Iterator[None]:
    """While open, an error is one of ``what``, such as ``metric 'f'``, on these outputs and targets.

    Raises
    ------
    MeasureFailed
        ``metric 'f' fails on 500 samples, outputs (500, 10), targets (500,): KeyError: 'weights'``; but ConfigError,
        whose message names what is wrong, warnings, and OutOfMemoryError, which has a remedy, pass as they are.
    """
    try:
        yield
    except (ConfigError, MeasureFailed, Warning, torch.OutOfMemoryError):
        raise
    except Exception as error:
        try:
            shapes = ", ".join(str(tuple(x.shape)) for x in nested.tensors(outputs))
        except TypeError:  # outputs of a class that is not known
            shapes = f"a {type(outputs).__name__}"
        given = f"{len(targets)} samples, outputs {shapes}, targets {tuple(targets.shape)}"
        raise MeasureFailed(f"{what} fails on {given}: {type(error).__name__}: {error}") from error


def of_each(
    functions: Mapping[str, Any], call: Callable[[Any], Tensor], outputs: Any, targets: Tensor
) -> dict[str, Tensor]:
    """``call(function)`` for each of a loss and metrics, by name. Raises MeasureFailed as ``named`` does."""
    values = {}
    for name, function in functions.items():
        with named(measure(name), outputs, targets):
            values[name] = call(function)
    return values


def measure(name: str) -> str:
    """The function of this name in words: ``the loss``, or ``metric 'f'``."""
    return "the loss" if name == "loss" else f"metric {name!r}"
