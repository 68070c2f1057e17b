"""grouped: the mean of each group of k coordinates; who is in a group is drawn anew each round, alike on both sides.

The founding text's pooled, compressed update. The groups are k consecutive coordinates of a keyed permutation of all
N: client and server draw the same one, which takes no bytes. With error feedback, what the mean of a group hides is
sent in a later round, in other groups; with fixed groups (``fixed``) it never is: the documented negative.

    code_g = mean of x over group g,   decoded_i = code of the group of i

Legend: N coordinates of all tensors together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys
from strategies.codecs._flat import dtype_of, flat, size, unflat


@dataclass(frozen=True)
class Grouped(Codec):
    """One number for each group."""

    k: Annotated[int, Ge(1)] = 4
    """Coordinates of a group."""
    fixed: bool = False
    """Whether groups are the same in all rounds: k neighbours. What they hide is never sent."""

    def form(self, like: Tree) -> Mapping[str, Form]:
        """The means (groups,)."""
        return {"means": Form((-(-size(like) // self.k),), dtype_of(like))}

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """The mean of each group; the last one may be smaller."""
        vector, n = flat(update), size(update)
        vector = vector if self.fixed else vector.index_select(0, _order(keys.shared, n).to(vector.device))
        whole = n - n % self.k
        means = vector[:whole].reshape(-1, self.k).mean(1)
        return {"means": torch.cat([means, vector[whole:].mean()[None]]) if whole < n else means}, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """Each coordinate is its group's mean."""
        n, means = size(like), code["means"]
        if self.fixed:
            return unflat(means.repeat_interleave(self.k)[:n], like)
        return unflat(means.index_select(0, _groups(shared, n, self.k).to(means.device)), like)

    def scaled(self, factor: float) -> "Grouped":
        """Groups of ``factor`` coordinates, rounded."""
        return replace(self, k=max(1, round(factor)))


@lru_cache(maxsize=2)
def _order(key: int, n: int) -> Tensor:
    """The permutation (N,) of a round, kept for all clients of the round."""
    return torch.from_numpy(rng.permutation(rng.key(key, "groups"), n))


@lru_cache(maxsize=2)
def _groups(key: int, n: int, k: int) -> Tensor:
    """The group (N,) of each coordinate in a round."""
    groups = torch.empty(n, dtype=torch.int32)
    groups[_order(key, n)] = torch.arange(n, dtype=torch.int32) // k
    return groups
