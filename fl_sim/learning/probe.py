"""What a loss and metrics give, seen on a few samples before a run: refused where that is not one number a sample.

Legend: B samples of a batch.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.kernels import outputs as nested
from fl_sim.kernels.in_place import copied
from fl_sim.kernels.layers import has_batch_norm
from fl_sim.learning.batch_means import COUNTED
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.samples.task_checks import check_outputs
from fl_sim.learning.trials.own_parameters import of_the_loss, others_than, parameters_of, untrained
from fl_sim.learning.trials.sample_numbers import EVALUATED, FIRST, checked, close, examined, rows_of
from fl_sim.tree import Tree

TRAINED = (3, 2)
"""Numbers of samples of two training steps."""


class Findings(NamedTuple):
    """What a run must know of its loss and metrics; both texts are empty where each gives one number a sample."""

    unpaddable: str
    """Why batches must not be padded, so that the run cannot use ``vmap``."""
    warning: str
    """What the reported means may differ from, and what of the loss is not trained; sentences with ``; `` between."""
    repeats: bool = True
    """Whether the loss gives the same numbers when it is called again."""


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
        functions = {"loss": loss.task.loss, **loss.task.metrics}
        found = {n: examined(n, f, outputs, data, loss.task.ignore_index) for n, f in functions.items()}
        singles = [function for name, function in functions.items() if found[name].alone]
        evaluated = _evaluated_alone(loss, model, singles, outputs, data)
        (several, unknown), (few, _) = (_training_values(loss, model, count) for count in TRAINED)
        _check_without_labels(loss, model)
    warning = "; ".join(filter(None, (*(n.warning for n in found.values()), unknown, "" if evaluated else _BLOCKS)))
    if several.ndim == 0:
        reason = "the loss gives a mean over the batch, which padding would enter"
        return Findings(reason, warning, found["loss"].repeats)
    alone = has_batch_norm(loss.training) or close(several[: len(few)], few, loss.precision == "bf16")
    reason = "the loss of a sample depends on the other samples of its batch, or on torch's random numbers"
    single = alone and evaluated and found["loss"].alone
    return Findings("" if single else reason, warning, found["loss"].repeats)


_BLOCKS = (
    "in evaluation mode the outputs of a sample depend on the other samples of its batch, or on random numbers: "
    "central sets are evaluated in blocks of 500 samples, a client's held-out samples in one"
)


def _evaluated_alone(loss: Loss, model: Tree, functions: Sequence[Any], outputs: Any, data: Tree) -> bool:
    """Whether the outputs in evaluation mode, and the numbers of samples, are those that fewer samples give too.

    ``outputs`` and ``data`` are those of EVALUATED samples. True for BatchNorm, which always trains on the loop.
    """
    if has_batch_norm(loss.training):
        return True
    with torch.no_grad():
        fewer = loss.arguments(model, _batch(loss, FIRST), training=False)
        pairs = [(rows_of((outputs, data), slice(0, FIRST)), fewer)]
        for function in functions:
            one, other = function(*copied((outputs, data))), function(*copied(fewer))
            pairs += [(one[:FIRST], other)] if one.ndim else []
    coarse = loss.precision == "bf16"
    try:
        return all(
            close(a, b, coarse)
            for first, second in pairs
            for a, b in zip(nested.tensors(first), nested.tensors(second), strict=False)
            if a.ndim and a.shape == b.shape
        )
    except TypeError:  # outputs of a class that is not known
        return True


def _batch(loss: Loss, count: int) -> Batch:
    """``count`` samples from all over the training samples, again from the first where there are fewer."""
    rows = torch.linspace(0, loss.task.num_train - 1, EVALUATED, dtype=torch.float64).long()[:count]
    return Batch({k: v[rows].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))


def _training_values(loss: Loss, model: Tree, count: int) -> tuple[Tensor, str]:
    """(what the loss gives in training mode, a sentence on parameters that are not the model's).

    Raises ConfigError where no parameter that trains takes part in the loss.
    """
    batch = _batch(loss, count)
    leaves = {k: v.requires_grad_() if k in loss.trainable else v.clone() for k, v in model.items()}
    with torch.enable_grad():
        outputs, data = loss.arguments(leaves, batch, training=True)
        value = checked("loss", loss.task.loss(*copied((outputs, data))), count, data["y"])
    used = parameters_of(value)
    others = others_than(used, leaves.values())
    if loss.trainable and len(of_the_loss(others, outputs)) == len(used):  # else the check of networks says more
        cure = "compute it from outputs with torch alone, without .detach(), .item(), argmax or NumPy"
        raise ConfigError(f"loss has no gradient: no parameter that trains takes part in it; {cure}")
    return value.detach(), untrained(others, outputs)


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
            cure = "divide by .clamp(min=1)"
            if loss.task.train["y"].ndim == 1:
                exchanged = "exchange such labels before they are used, as in b['y'].clamp(min=0)"
                cure = f"{exchanged}, and neither divide by 0 there nor take its logarithm"
            raise ConfigError(f"{what} (task.ignore_index = {loss.task.ignore_index}); {cure}")
