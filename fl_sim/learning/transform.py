"""From stored samples to model inputs: scaling, standardisation, augmentation.

Legend: B batch.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Transform:
    """From stored samples to model inputs: scale, standardise, augment. x (B, ...) float of the run's dtype."""

    scale: float = 1.0
    """Factor on the stored values: 1/255 takes uint8 pixels to [0, 1]."""
    mean: Tensor | None = None
    """Subtracted after scaling; broadcasts against one sample."""
    std: Tensor | None = None
    """Divides after the mean is subtracted."""
    augment: bool = False
    """Random crop out of a reflect-padded image (4 pixels), random horizontal flip; keyed draws."""

    def __call__(self, batch: Tree, words: Tensor | None) -> Tree:
        """``words`` (2,) are the key of this batch's draws; None switches augmentation off (evaluation)."""
        x = batch["x"]
        if self.scale != 1.0:
            x = x * self.scale
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.to(x)) / self.std.to(x)
        if self.augment and words is not None:
            x = _crop_flip(x, words)
        return {**batch, "x": x}


def placed(transform: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The transform with its tensors on a GPU, so that no step waits for a copy; on a CPU as it is."""
    if device.type == "cpu" or not isinstance(transform, Transform) or transform.mean is None or transform.std is None:
        return transform
    return replace(transform, mean=transform.mean.to(device, dtype), std=transform.std.to(device, dtype))


def _crop_flip(x: Tensor, words: Tensor, pad: int = 4) -> Tensor:
    """x (B, channels, height, width); the draw of sample b depends on the key and b alone, so that padding changes nothing."""
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
