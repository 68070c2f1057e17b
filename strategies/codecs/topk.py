"""topk: only the coordinates of largest magnitude, with their indices.

Aji, Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017, arXiv:1704.05021; Stich, Cordonnier,
Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599 (its error feedback).

    S = the k = max(1, round(share N)) indices of largest |x|, of equal ones the first;  code = (x_S, S)

Legend: N coordinates of all tensors together, k that are sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys
from strategies.codecs import _indices
from strategies.codecs._flat import dtype_of, flat, size, unflat

SAMPLE = 20_000
"""How many coordinates of a large update suggest which may be among the largest."""


@dataclass(frozen=True)
class TopK(Codec):
    """The largest coordinates."""

    share: Annotated[float, Gt(0), Le(1)] = 0.01
    """Share of the coordinates that is sent."""

    def form(self, like: Tree) -> Mapping[str, Form]:
        """The values (k,) and the indices (bytes,)."""
        k, n = self.count(like), size(like)
        return {"values": Form((k,), dtype_of(like)), "indices": Form((_indices.num_bytes(k, n),), torch.uint8)}

    def count(self, like: Tree) -> int:
        """k."""
        return min(max(1, round(self.share * size(like))), size(like))

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """The largest coordinates and their indices."""
        vector, n = flat(update), size(update)
        chosen = largest(vector, self.count(update))
        packed = torch.from_numpy(_indices.packed(chosen.cpu().numpy(), n))
        return {"values": vector[chosen], "indices": packed}, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """The sent coordinates; zero elsewhere."""
        return unflat(scattered(code["values"], _read(code, like), size(like)), like)

    def content_problem(self, code: Tree, like: Tree) -> str:
        """Indices that are not ascending or out of range."""
        if _unpacked(code, like) is None:
            return f"code: no {len(code['values'])} ascending indices below {size(like)}"
        return ""

    def transmit(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """The same without packing indices."""
        vector = flat(update)
        chosen = largest(vector, self.count(update))
        return unflat(scattered(vector[chosen], chosen, len(vector)), update), {}

    def scaled(self, factor: float) -> "TopK":
        """One coordinate of ``factor`` is sent."""
        return replace(self, share=1 / factor)


def largest(vector: Tensor, k: int) -> Tensor:
    """The indices (k,) of largest magnitude of (N,), ascending; of equal ones at the limit those of lowest index.

    Sorted are only those above a bound that some thousand of the coordinates suggest: it decides nothing but the time.
    """
    sizes = vector.detach().abs()
    sample = sizes[:: max(1, len(sizes) // SAMPLE)]
    first = min(len(sample), int(1.3 * k / len(sizes) * len(sample)) + 30)
    candidates = _where(sizes > _kth_largest(sample, first))
    if len(candidates) < k:
        candidates = torch.arange(len(sizes), device=sizes.device)
    found = sizes[candidates]
    limit = _kth_largest(found, k)
    chosen = found >= limit
    if (spare := int(chosen.sum()) - k) > 0:
        chosen[_where(found == limit)[-spare:]] = False
    return candidates[_where(chosen)]


def _where(mask: Tensor) -> Tensor:
    """The indices at which a mask (N,) is true, ascending; on a CPU NumPy finds them faster."""
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero().flatten()


def _kth_largest(x: Tensor, k: int) -> Tensor:
    """The k-th largest number () of (N,)."""
    place = len(x) - k
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.partition(x.numpy(), place)[place : place + 1])[0]
    return x.kthvalue(place + 1).values


def scattered(values: Tensor, indices: Tensor, n: int) -> Tensor:
    """A vector (n,) with ``values`` (k,) at ``indices`` (k,), and zeros elsewhere."""
    vector = torch.zeros(n, dtype=values.dtype, device=values.device)
    vector[indices] = values
    return vector


def _unpacked(code: Tree, like: Tree) -> np.ndarray | None:
    return _indices.unpacked(code["indices"].cpu().numpy(), len(code["values"]), size(like))


def _read(code: Tree, like: Tree) -> Tensor:
    found = _unpacked(code, like)
    if found is None:
        raise ValueError("no ascending indices in range")
    return torch.from_numpy(found).to(code["values"].device)
