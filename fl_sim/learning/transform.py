"""From stored samples to model inputs: scaling, standardisation, augmentation.

Legend: B batch size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Transform:
    """Scales, standardises and augments a batch. ``x`` (B, ...) is of the run's floating-point dtype."""

    scale: float = 1.0
    """Factor on the stored values: 1/255 maps uint8 pixels to [0, 1]."""
    mean: Tensor | None = None
    """Subtracted after scaling; of a shape that broadcasts to one sample."""
    std: Tensor | None = None
    """Divisor after the mean is subtracted; of a shape that broadcasts to one sample."""
    augment: bool = False
    """Whether to crop images at random, after padding by 4 reflected pixels, and flip them horizontally at random."""

    def __call__(self, batch: Tree, words: Tensor | None) -> Tree:
        """Transform a batch. ``words`` (2,) key its random draws; None switches augmentation off (evaluation)."""
        x = batch["x"]
        if self.scale != 1.0:
            x = x * self.scale
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.to(x)) / self.std.to(x)
        if self.augment and words is not None:
            x = _crop_flip(x, words)
        return {**batch, "x": x}


class Lookup(ABC):
    """A transform whose x (B,) are integers by which it looks up samples that it holds, each once for all clients.

    ``Task.sample_shape`` says what the model gets.
    """

    @abstractmethod
    def placed(self, dtype: torch.dtype, device: torch.device) -> "Lookup":
        """The transform that gives samples of ``dtype`` on ``device``."""

    @abstractmethod
    def __call__(self, batch: Tree, words: Tensor | None) -> Tree:
        """The batch with the samples as x; a sample depends on its own integer alone."""


def placed(transform: object, dtype: torch.dtype, device: torch.device) -> Any:
    """The transform with its tensors on ``device``, so that no step waits for a copy to a GPU.

    Returns any ``Transform`` on a CPU unchanged, and any other transform but a ``Lookup``.
    """
    if isinstance(transform, Lookup):
        return transform.placed(dtype, device)
    if device.type == "cpu" or not isinstance(transform, Transform) or transform.mean is None or transform.std is None:
        return transform
    return replace(transform, mean=transform.mean.to(device, dtype), std=transform.std.to(device, dtype))


def _crop_flip(x: Tensor, words: Tensor, pad: int = 4) -> Tensor:
    """Random crops and flips of x (B, channels, height, width).

    The draw for sample b depends on the key and on b only, so that padding the batch changes no other sample.
    """
    size, height, width = x.shape[0], x.shape[-2], x.shape[-1]
    draws = [rng.uniform(rng.fold(words, n), (size,), torch.float32) for n in range(3)]
    rows = (draws[0] * (2 * pad + 1)).long()[:, None] + torch.arange(height, device=x.device)
    columns = (draws[1] * (2 * pad + 1)).long()[:, None] + torch.arange(width, device=x.device)
    columns = torch.where(draws[2][:, None] < 0.5, columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[
        torch.arange(size, device=x.device)[:, None, None, None],
        channels,
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
