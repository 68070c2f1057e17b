"""The error of a loss or metric that raises: it names which one, and what it was given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.kernels import outputs as nested


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
