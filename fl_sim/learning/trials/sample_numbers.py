"""Whether a loss or metric gives one number a sample, or a mean over samples: seen on a few samples.

Legend: B samples of a batch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.kernels import outputs as nested
from fl_sim.kernels.in_place import copied
from fl_sim.learning.batch_means import mean
from fl_sim.learning.measures import counted, measure, named
from fl_sim.learning.trials.kept_values import kept_by
from fl_sim.learning.trials.other_outputs import other_outputs
from fl_sim.tree import Tree

EVALUATED, FIRST = 7, 5
"""Numbers of samples: of an evaluation, and of the first part of it.

A shape that is right for two numbers of samples is not right by accident.
"""
ROWS = [(slice(0, EVALUATED), EVALUATED), (slice(0, FIRST), FIRST), (slice(FIRST, EVALUATED), EVALUATED - FIRST)]
_SET_METRICS = "a number of a whole test set belongs into set_metrics"


class Numbers(NamedTuple):
    """What a loss or metric gives."""

    alone: bool
    """Whether the number of a sample, where there is one, does not depend on the other samples."""
    warning: str
    """What the reported means may differ from; empty for a mean over samples."""
    repeats: bool = True
    """Whether it gives the same numbers when it is called again, and changes nothing that it keeps."""


def examined(name: str, function: Any, outputs: Any, data: Tree, ignore_index: int | None) -> Numbers:
    """What a function gives for ``EVALUATED`` samples, for the first of them, and for the rest.

    It is called with the network's outputs, and with others (``other_outputs``), because a sum and a mean that are 0
    are the same. These others may be none that the network could give: where the function raises on them, or gives
    no finite numbers, they are left out.

    Raises ConfigError for a loss or metric that is none, and for a metric of one sample that depends on the others;
    MeasureFailed where the function raises on the network's own outputs.
    """
    alone, sure, unlike, kept = True, False, "", ""
    for number, tried in enumerate(other_outputs(outputs, data["y"])):
        try:
            values = _values(name, function, tried, data)
        except ConfigError:
            raise
        except Exception:
            if number:
                continue
            raise
        if not number:
            repeats, kept = _memory(name, function, tried, data)
            if not repeats:
                return Numbers(False, kept, False)
        if values[0].ndim == 0:
            is_mean = _is_mean(name, values, data["y"], ignore_index)
            if is_mean is False:
                what = "the loss gives a scalar that is no mean over samples: over several batches, the mean of batches"
                return Numbers(True, "; ".join(filter(None, (f"{what} is reported", kept))), not kept)
            sure = sure or bool(is_mean)
            continue
        sure = True
        alone = alone and close(values[0][:FIRST], values[1]) and _is_single(name, function, tried, data, values[0])
        if name != "loss" and not alone:
            raise ConfigError(f"{name} of a sample depends on the other samples of its batch; {_SET_METRICS}")
        if ignore_index is not None and data["y"].ndim > 1:
            unlike = _unlike_labels(name, function, tried, data, ignore_index) or unlike
    what = f"{name} is 0, or no finite number, for all samples that were tried"
    told = unlike if sure else f"{what}: whether it is a mean over samples or their sum is not known"
    return Numbers(alone, "; ".join(filter(None, (told, kept))), not kept)


def _values(name: str, function: Any, outputs: Any, data: Tree) -> list[Tensor]:
    """The function's results for each of ROWS, all (B,) or all ()."""
    values = []
    for rows, count in ROWS:
        try:
            shown, own = rows_of(outputs, rows), rows_of(data, rows)
            with torch.no_grad(), named(measure(name), shown, own["y"]):
                given = function(shown, own)
        except UserWarning as warning:
            raise ConfigError(f"{name}: outputs and y broadcast: {warning}") from warning
        values.append(checked(name, given, count, data["y"]))
    if len({value.ndim for value in values}) > 1:
        raise ConfigError(f"{name} gives one number a sample for some batches, and a scalar for others")
    return values


def _is_mean(name: str, values: list[Tensor], y: Tensor, ignore_index: int | None) -> bool | None:
    """Whether the scalars of all samples and of both parts are means over samples; None where that cannot be told.

    Raises ConfigError for a sum, and for a metric that is no mean.
    """
    sizes = [torch.tensor(float(count)) for _, count in ROWS]
    if ignore_index is not None:
        sizes = [counted(y[rows], ignore_index).sum() for rows, _ in ROWS]
        values = [mean(v, None, counted(y[rows], ignore_index)) for v, (rows, _) in zip(values, ROWS, strict=True)]
    if not bool(torch.isfinite(values[0])):
        return None
    shares = [value.double() * size.to(value.device) for value, size in zip(values, sizes, strict=True)]
    whole, first, rest = values
    is_sum = close(whole.double(), first.double() + rest.double())
    if close(shares[0], shares[1] + shares[2]):
        return None if is_sum else True
    if is_sum:
        raise ConfigError(f"{name} gives a sum over the samples; it must give one number a sample, or their mean")
    if name != "loss":
        raise ConfigError(f"{name} gives a scalar that is no mean over samples; {_SET_METRICS}")
    return False


def _is_single(name: str, function: Any, outputs: Any, data: Tree, once: Tensor) -> bool:
    """Whether a sample's number stays where a sample occurs twice, unlike with weights by the classes' counts.

    The sample with the largest number is the one that occurs twice: a loss near 0 would hide its own change.
    """
    largest = once.double().abs().nan_to_num(0, 0, 0).argmax().cpu().reshape(1)
    again = torch.cat([torch.arange(EVALUATED), largest])
    shown, own = rows_of(outputs, again), rows_of(data, again)
    with torch.no_grad(), named(measure(name), shown, own["y"]):
        twice = function(shown, own)
    return close(twice.double()[:EVALUATED], once.double())


def _memory(name: str, function: Any, outputs: Any, data: Tree) -> tuple[bool, str]:
    """(whether a function gives the same numbers when it is called again, a sentence on what a loss keeps).

    The sentence is empty where it keeps nothing. Raises ConfigError for a metric that gives other numbers.
    """
    before = kept_by(function)
    with named(measure(name), outputs, data["y"]):
        first, second = (_called_alone(function, outputs, data) for _ in range(2))
    changed = sorted(key for key, value in kept_by(function).items() if name == "loss" and before.get(key) != value)
    same = torch.equal(first.nan_to_num(), second.nan_to_num()) if not first.is_cuda else close(first, second)
    shared = "is shared by the clients of one process, in the order of their steps"
    if same:
        return True, f"the loss changes {', '.join(changed)} when it is called: this {shared}" if changed else ""
    what = f"{name} gives other numbers when it is called again with the same outputs and samples"
    if name != "loss":
        raise ConfigError(f"{what}: it keeps something between calls; an object that does belongs into set_metrics")
    return False, f"{what}: what it keeps between calls {shared}"


def _called_alone(function: Any, outputs: Any, data: Tree) -> Tensor:
    with torch.no_grad(), rng.keyed_globals(0):
        value: Tensor = function(*copied((outputs, data)))
    return value.double()


def _unlike_labels(name: str, function: Any, outputs: Any, data: Tree, ignore_index: int) -> str:
    """A sentence on a number a sample that is no mean over the sample's labels that count, such as a Dice loss.

    Raises ConfigError for a number that is a sum, or a mean whose denominator counts ignored labels too.

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
    if close(parts[0], parts[1] + parts[2]):
        return ""
    if close(whole, first + second):
        what = f"{name} of a sample is not the mean over its labels that count (task.ignore_index = {ignore_index})"
        raise ConfigError(f"{what}; divide their sum by their number, .clamp(min=1)")
    if not bool(torch.isfinite(whole).all()):
        return ""
    what = f"{name} of a sample is no mean over its labels that count (task.ignore_index = {ignore_index})"
    return f"{what}: in means over samples each weighs by the number of these labels"


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


def rows_of(value: Any, rows: slice | Tensor) -> Any:
    """Some samples of outputs or of a batch, as copies."""
    return nested.mapped(lambda x: x[rows].clone() if x.ndim else x, value)


def close(a: Tensor, b: Tensor, coarse: bool = False) -> bool:
    """Whether two results agree to rounding; NaN agrees with NaN."""
    a, b = (x if x.is_floating_point() or x.is_complex() else x.double() for x in (a, b))
    tolerance = 5e-2 if coarse else 1e-3
    scale = float(a.detach().abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b.to(a), rtol=tolerance, atol=0.1 * tolerance * scale, equal_nan=True)
