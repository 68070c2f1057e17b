"""The mean of a loss or metric over a batch: over its real samples, each with the weight that its labels give it.

Legend: B batch.
"""

from collections.abc import Container, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fl_sim.learning.measures import counted
from fl_sim.tree import Tree

COUNTED = "counted"
"""The name under which training samples carry their weights, where a label is ignored."""


def weights_of(samples: Tree, ignore_index: int | None) -> Tensor | None:
    """(B,) int64: how many labels of each sample count; None where no label is ignored, as each then weighs 1."""
    return None if ignore_index is None else counted(samples["y"], ignore_index)


def with_weights(samples: Tree, ignore_index: int | None) -> Tree:
    """``samples`` with the number of labels of each that count, (N,) int64; unchanged where no label is ignored."""
    if ignore_index is None or not samples:
        return samples
    return {**samples, COUNTED: counted(samples["y"], ignore_index)}


def weight_of(size: int, mask: Tensor | None, weights: Tensor | None) -> Tensor | int:
    """What a batch of ``size`` places weighs in a mean over batches: its real samples, or their ``weights`` (B,)."""
    if weights is None:
        return size if mask is None else mask.sum()
    return (weights if mask is None else torch.where(mask, weights, 0)).sum()


def mean(values: Tensor, mask: Tensor | None, weights: Tensor | None, whole: torch.dtype = torch.float32) -> Tensor:
    """The mean of one batch, (); 0 where no sample is real or no label counts.

    Parameters
    ----------
    values : Tensor
        (B,), one number a sample; or (), a mean over the batch already, where there is no ``mask``.
    mask : Tensor, optional
        (B,) bool: which samples are real; default: all.
    weights : Tensor, optional
        (B,) the number of each sample's labels that count; default: each sample weighs 1.
    whole : torch.dtype (default: float32)
        Of the mean where ``values`` are whole numbers, truth values or of half precision.

    Raises
    ------
    ValueError
        If the batch is padded and ``values`` are not one number a sample.
    """
    values = values if values.is_floating_point() and values.dtype.itemsize >= 4 else values.to(whole)
    if mask is not None and values.shape != mask.shape:
        shapes = f"gives shape {tuple(values.shape)} for a padded batch of {len(mask)} samples"
        raise ValueError(f"a loss or metric {shapes}; it must give ({len(mask)},), one number a sample")
    if weights is None:
        return values.mean() if mask is None else torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
    if values.ndim == 0:
        if not values.requires_grad:
            return torch.where(weights.any(), values, 0.0)
        # The mean over no label is 0 / 0 with a gradient of NaN: a constant takes its place.
        return values if bool(weights.any()) else torch.zeros_like(values, requires_grad=True)
    real = weights if mask is None else torch.where(mask, weights, 0)
    return (torch.where(real > 0, values, 0.0) * real).sum() / real.sum().clamp(min=1)


class Count(NamedTuple):
    """How many labels are predicted right, and how many there are, both () int64."""

    right: Tensor
    labels: Tensor

    @classmethod
    def of(cls, hits: Tensor, y: Tensor, mask: Tensor | None, weights: Tensor | None) -> Self:
        """Of a batch: the ``hits`` (B,) int64 and labels y (B, ...) of its samples; the rest is as of ``mean``."""
        labels = weight_of(len(y), mask, weights) * (1 if weights is not None else y[0].numel())
        right = hits if mask is None else torch.where(mask, hits, 0)
        return cls(right.sum(), labels if isinstance(labels, Tensor) else hits.new_full((), labels))

    @property
    def quotient(self) -> Tensor:
        """``right / labels``, () float64: the double that is nearest to the fraction; 0 where there is no label."""
        return self.right.double() / self.labels.clamp(min=1).double()


def means_of(
    values: Mapping[str, Tensor],
    hits: Container[str],
    y: Tensor,
    mask: Tensor | None,
    weights: Tensor | None,
    whole: torch.dtype,
) -> tuple[dict[str, Tensor], dict[str, Count]]:
    """(the mean of each of a batch's loss and metrics, the counts of those that are ``hits``, (B,) int64 each)."""
    counts = {name: Count.of(v, y, mask, weights) for name, v in values.items() if name in hits}
    found = {
        name: counts[name].quotient if name in counts else mean(v, mask, weights, whole) for name, v in values.items()
    }
    return found, counts
