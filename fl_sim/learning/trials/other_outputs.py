"""Outputs of the same shapes as a network's, on which a loss or metric that is 0 at first gives other numbers.

An untrained network may classify all of a few samples wrong, so that the sum of its hits is 0, as is their mean.

Legend: B samples, K classes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.kernels import outputs as nested


def other_outputs(outputs: Any, y: Tensor) -> Iterator[Any]:
    """A network's outputs (B, ...) themselves, then others of their shapes and types.

    These are: the outputs of other samples, scores that are mirrored, scores whose highest is that of the class in
    ``y``, and draws of a normal distribution, which may be no outputs that the network could give.
    """
    draws = rng.generator(0)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.roll(1, 0),
        lambda x: x.amin() + x.amax() - x,
        lambda x: _hits(x, y),
        lambda x: torch.from_numpy(draws.standard_normal(tuple(x.shape))).to(x),
    ]
    yield outputs
    for change in changes:
        yield nested.mapped(partial(_changed, change), outputs)


def _changed(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return change(x) if x.ndim and x.is_floating_point() and x.numel() else x


def _hits(scores: Tensor, y: Tensor) -> Tensor:
    """Scores (B, K, ...) or (B, ..., K) with the highest of each place exchanged for that of its class in y (B, ...).

    Others are returned unchanged.
    """
    if y.is_floating_point():
        return scores
    for axis in (1, -1):
        if scores.ndim == y.ndim + 1 and scores.select(axis, 0).shape == y.shape:
            of_class = y.long().clamp(0, scores.shape[axis] - 1).unsqueeze(axis)
            highest = scores.argmax(axis, keepdim=True)
            swapped = scores.scatter(axis, highest, scores.gather(axis, of_class))
            return swapped.scatter(axis, of_class, scores.gather(axis, highest))
    return scores
