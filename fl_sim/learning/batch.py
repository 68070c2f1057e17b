"""One step's samples of one client.

Legend: B batch.
"""

from dataclasses import dataclass

from torch import Tensor

from fl_sim.learning.batch_means import COUNTED, weight_of
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Batch:
    """One step's samples of one client, as stored (before the task's transform)."""

    data: Tree
    """x (B, ...), y (B, ...)."""
    words: Tensor
    """(2,) int32: the key of this step's draws."""
    mask: Tensor | None = None
    """(B,) bool: which samples are real; None means all."""
    active: Tensor | None = None
    """() bool: False for a padded step, which changes nothing; None means active."""

    @property
    def size(self) -> Tensor | int:
        """How many samples are real; 0 in a padded step."""
        return len(self.data["y"]) if self.mask is None else self.mask.sum()

    @property
    def weight(self) -> Tensor | int:
        """Its weight in a mean over batches: ``size``, or where labels are ignored how many labels count."""
        return weight_of(len(self.data["y"]), self.mask, self.data.get(COUNTED))

    @property
    def given(self) -> Tree:
        """The key, and the mask where there is one: with ``data``, the tensors that a loss reads."""
        return {"words": self.words} if self.mask is None else {"words": self.words, "mask": self.mask}
