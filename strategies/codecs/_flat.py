"""All tensors of an update as one vector, and back.

Legend: N coordinates of all tensors together.
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree


def flat(update: Tree) -> Tensor:
    """The coordinates (N,) in the order of the leaves; of the first leaf's dtype."""
    return torch.cat([x.reshape(-1) for x in update.values()])


def size(like: Tree) -> int:
    """N."""
    return sum(x.numel() for x in like.values())


def dtype_of(like: Tree) -> torch.dtype:
    """The dtype of ``flat``."""
    return next(iter(like.values())).dtype


def unflat(vector: Tensor, like: Tree) -> Tree:
    """A vector (N,) as a tree with the names, shapes and dtypes of ``like``."""
    parts = torch.split(vector, [x.numel() for x in like.values()])
    return {k: part.reshape(x.shape).to(x.dtype) for (k, x), part in zip(like.items(), parts, strict=True)}
