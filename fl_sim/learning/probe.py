"""What a loss and metrics give, seen on a few samples before a run: refused where that is not one number a sample.

Legend: B samples of a batch.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.kernels import outputs as nested
from fl_sim.kernels.in_place import copied
from fl_sim.kernels.layers import has_batch_norm
from fl_sim.learning.batch_means import COUNTED, mean
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import counted
from fl_sim.learning.samples.task_checks import check_outputs
from fl_sim.tree import Tree

EVALUATED, FIRST, TRAINED = 7, 5, (3, 2)
"""Numbers of samples: of an evaluation and of the first part of it, and of two training steps.

A shape that is right for two numbers of samples is not right by accident.
"""


class Findings(NamedTuple):
    """What a run must know of its loss; both texts are empty for a loss that gives one number a sample."""

    unpaddable: str
    """Why batches must not be padded, so that the run cannot use ``vmap``."""
    warning: str
    """What the reported means of the loss may differ from."""


def probe(loss: Loss) -> Findings:
    """Evaluate loss and metrics on a few samples, and take the loss of two training steps; nothing is changed.

    Raises
    ------
    ConfigError
        Where the loss or a metric gives anything but a tensor (B,), one number a sample, or a scalar mean over them;
        where a metric of one sample depends on the others; where the loss has no gradient.
    """
    if not loss.task.num_train:
        return Findings("", "")
    model = loss.initial()
    with rng.keyed_globals(0), warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size")  # PyTorch's word for outputs and y that broadcast
        with torch.no_grad():
            outputs, data = loss.arguments(model, _batch(loss, EVALUATED), training=False)
        check_outputs(loss.task, outputs, data["y"])
        warning = ""
        for name, function in {"loss": loss.task.loss, **loss.task.metrics}.items():
            warning = _examined(name, function, outputs, data, loss.task.ignore_index) or warning
        several, few = (_training_values(loss, model, count) for count in TRAINED)
        _check_without_labels(loss, model)
    if several.ndim == 0:
        return Findings("the loss gives a mean over the batch, which padding would enter", warning)
    alone = has_batch_norm(loss.training) or _close(several[: len(few)], few, loss.precision == "bf16")
    alone = alone and _is_single(loss.task.loss, outputs, data)
    reason = "the loss of a sample depends on the other samples of its batch, or on torch's random numbers"
    return Findings("" if alone else reason, warning)


def _batch(loss: Loss, count: int) -> Batch:
    """``count`` samples from all over the training samples, again from the first where there are fewer."""
    rows = torch.linspace(0, loss.task.num_train - 1, EVALUATED, dtype=torch.float64).long()[:count]
    return Batch({k: v[rows].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))


def _examined(name: str, function: Any, outputs: Any, data: Tree, ignore_index: int | None) -> str:
    """Raise ConfigError for a loss or metric that is none; the warning for a scalar loss that is no mean over samples.

    The function is called on all samples of an evaluation, on the first of them, and on the rest.
    """
    y = data["y"]
    parts = [(slice(0, EVALUATED), EVALUATED), (slice(0, FIRST), FIRST), (slice(FIRST, EVALUATED), EVALUATED - FIRST)]
    values = []
    for rows, count in parts:
        try:
            with torch.no_grad():
                given = function(_rows(outputs, rows), _rows(data, rows))
        except UserWarning as warning:
            raise ConfigError(f"{name}: outputs and y broadcast: {warning}") from warning
        values.append(checked(name, given, count, y))
    whole, first, rest = values
    if len({value.ndim for value in values}) > 1:
        raise ConfigError(f"{name} gives one number a sample for some batches, and a scalar for others")
    if whole.ndim == 1:
        if name != "loss" and not _close(whole[:FIRST], first, False):
            raise ConfigError(f"{name} of a sample depends on the other samples of its batch; {_SET_METRICS}")
        if ignore_index is not None and y.ndim > 1:
            _check_labels_that_count(name, function, outputs, data, ignore_index)
        return ""
    sizes = [torch.tensor(float(count)) for _, count in parts]
    if ignore_index is not None:
        sizes = [counted(y[rows], ignore_index).sum() for rows, _ in parts]
        values = [mean(v, None, counted(y[rows], ignore_index)) for v, (rows, _) in zip(values, parts, strict=True)]
    shares = [value.double() * size.to(value.device) for value, size in zip(values, sizes, strict=True)]
    if _close(shares[0], shares[1] + shares[2], False):
        return ""
    if _close(whole.double(), first.double() + rest.double(), False):
        raise ConfigError(f"{name} gives a sum over the samples; it must give one number a sample, or their mean")
    if name != "loss":
        raise ConfigError(f"{name} gives a scalar that is no mean over samples; {_SET_METRICS}")
    return "the loss gives a scalar that is no mean over samples: over several batches, the mean of batches is reported"


def _check_labels_that_count(name: str, function: Any, outputs: Any, data: Tree, ignore_index: int) -> None:
    """Raise ConfigError for a number a sample that is a sum, or a mean whose denominator counts ignored labels too.

    Of a sample's labels that count, one half is ignored, then the other. A mean over n labels is that of both halves,
    weighted by their numbers; a sum, or a sum divided by the number of all labels, is the sum of both.
    """
    y = data["y"]
    counts = y != ignore_index
    odd = counts.flatten(1).cumsum(1).reshape(y.shape) % 2 == 1
    targets = [y, torch.where(odd, y, ignore_index), torch.where(odd, ignore_index, y)]
    with torch.no_grad():
        values = [function(*copied((outputs, {**data, "y": target}))).double() for target in targets]
    whole, first, second = values
    parts = [value * counted(target, ignore_index) for value, target in zip(values, targets, strict=True)]
    if not _close(parts[0], parts[1] + parts[2], False) and _close(whole, first + second, False):
        what = f"{name} of a sample is not the mean over its labels that count (task.ignore_index = {ignore_index})"
        raise ConfigError(f"{what}; divide their sum by their number, .clamp(min=1)")


_SET_METRICS = "a number of a whole test set belongs into set_metrics"


def checked(name: str, value: object, count: int, y: Tensor) -> Tensor:
    """``value`` as a tensor (count,) or (). Raises ConfigError, named after the loss or metric, for anything else."""
    if not isinstance(value, Tensor):
        made = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        cure = "it must give a tensor, computed with torch from outputs and batch"
        raise ConfigError(f"{name} gives a {made} ({value!r:.40}); {cure}")
    if value.is_complex():
        raise ConfigError(f"{name} gives complex numbers ({value.dtype}); it must give real ones")
    if value.shape in ((), (count,)):
        return value if value.is_floating_point() else value.float()
    seen = f"{name} gives shape {tuple(value.shape)} for {count} samples"
    cure = ""
    if value.ndim == 2 and len(value) == value.shape[1]:
        cure = f"; outputs and y of shape {(count, *y.shape[1:])} broadcast"
    elif value.ndim > 1 and len(value) == count:
        cure = "; .flatten(1).mean(1) gives the mean over the rest"
    raise ConfigError(f"{seen}; it must give ({count},), one number a sample, or a scalar mean{cure}")


def _training_values(loss: Loss, model: Tree, count: int) -> Tensor:
    """What the loss gives in training mode. Raises ConfigError where it has no gradient."""
    batch = _batch(loss, count)
    leaves = {k: v.requires_grad_() if k in loss.trainable else v.clone() for k, v in model.items()}
    with torch.enable_grad():
        outputs, data = loss.arguments(leaves, batch, training=True)
        value = checked("loss", loss.task.loss(*copied((outputs, data))), count, data["y"])
    if loss.trainable and not value.requires_grad:
        cure = "compute it from outputs with torch alone, without .detach(), .item(), argmax or NumPy"
        raise ConfigError(f"loss has no gradient: no parameter that trains takes part in it; {cure}")
    return value.detach()


def _check_without_labels(loss: Loss, model: Tree) -> None:
    """Raise ConfigError where samples without a label that counts have a gradient that is not finite, such as 0 / 0."""
    weights = loss.task.train.get(COUNTED)
    if weights is None or bool((weights > 0).all()):
        return
    rows = (weights == 0).nonzero().flatten()[:2]
    batch = Batch({k: v[rows].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))
    for name, slope in loss.gradient(model, batch)[0].items():
        if not bool(torch.isfinite(slope).all()):
            what = f"loss has a gradient for {name} that is NaN where no label of a sample counts"
            raise ConfigError(f"{what} (task.ignore_index = {loss.task.ignore_index}); divide by .clamp(min=1)")


def _is_single(function: Any, outputs: Any, data: Tree) -> bool:
    """Whether a sample's loss stays where a sample occurs twice, unlike with weights by the classes' counts.

    The sample with the largest loss is the one that occurs twice: a loss near 0 would hide its own change.
    """
    with torch.no_grad():
        once = function(_rows(outputs, slice(None)), _rows(data, slice(None)))
        if once.ndim == 0:
            return True
        again = torch.cat([torch.arange(EVALUATED), once.abs().nan_to_num(0, 0, 0).argmax().cpu().reshape(1)])
        twice = function(_rows(outputs, again), _rows(data, again))
    return _close(twice[:EVALUATED], once, False)


def _rows(value: Any, rows: slice | Tensor) -> Any:
    """Some samples of outputs or of a batch, as copies."""
    return nested.mapped(lambda x: x[rows].clone() if x.ndim else x, value)


def _close(a: Tensor, b: Tensor, coarse: bool) -> bool:
    """Whether two results agree to rounding; NaN agrees with NaN."""
    tolerance = 5e-2 if coarse else 1e-3
    scale = float(a.detach().abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b.to(a), rtol=tolerance, atol=0.1 * tolerance * scale, equal_nan=True)
