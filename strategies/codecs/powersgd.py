"""powersgd: each matrix as the product of two thin ones, found by one power iteration from those of the last round.

Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", NeurIPS
2019, arXiv:1905.13727, algorithm 1.

    P = orthonormal(M Q),   Q <- M^T P,   decoded = P Q^T        M: (m, n),  P: (m, r),  Q: (n, r)

Not the all-reduced original: there P and Q are means over all workers, so that all workers project on one subspace.
Here each client sends its own P and Q, because the server reads a client by itself, and keeps its own Q for its next
round. Its first Q is a normal draw by its own key, so that the errors of different clients have nothing in common.

A tensor of more than two dimensions is the matrix (first, all others), such as a convolution's (out, in k k). Tensors
of at most one dimension, and matrices with r (m + n) >= m n, are sent whole.

Products are computed where the update is: on another kind of device their last bits may differ.

Legend: m, n rows and columns of a matrix, r the rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys
from fl_sim.wire.payload import BETWEEN

LEFT, RIGHT = "#p", "#q"
"""Suffixes of a leaf's P and Q in a code; ``#`` cannot occur in a module's names."""
LAST = f"q{BETWEEN}"
"""How the names of kept Q begin."""


@dataclass(frozen=True)
class PowerSGD(Codec):
    """r (m + n) numbers for a matrix of m n."""

    rank: Annotated[int, Ge(1)] = 2
    """Rank of what is sent of each matrix."""

    def form(self, like: Tree) -> Mapping[str, Form]:
        """P (m, r) and Q (n, r) of each matrix, and the other tensors."""
        form = dict[str, Form]()
        for k, x in like.items():
            if self.is_thin(x):
                m, n = _sides(x)
                form |= {k + LEFT: Form((m, self.rank), x.dtype), k + RIGHT: Form((n, self.rank), x.dtype)}
            else:
                form[k] = Form(tuple(x.shape), x.dtype)
        return form

    def is_thin(self, x: Tensor) -> bool:
        """Whether P and Q of a tensor have fewer numbers than it has itself."""
        m, n = _sides(x)
        return x.dim() > 1 and self.rank * (m + n) < m * n

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """One power iteration from the kept Q; a Q of another shape, of another rank, is drawn anew."""
        code, kept = Tree(), Tree()
        for number, (k, x) in enumerate(update.items()):
            if not self.is_thin(x):
                code[k] = x
                continue
            matrix = x.reshape(_sides(x)).to(torch.promote_types(x.dtype, torch.float32))
            last = state.get(LAST + k)
            if last is None or tuple(last.shape) != (matrix.shape[1], self.rank):
                draw = rng.generator(rng.key(keys.own, "powersgd", number))
                last = torch.from_numpy(draw.standard_normal((matrix.shape[1], self.rank)))
            left = torch.linalg.qr(matrix @ last.to(matrix)).Q
            code[k + LEFT], code[k + RIGHT] = left.to(x.dtype), (matrix.T @ left).to(x.dtype)
            kept[LAST + k] = code[k + RIGHT]
        return code, kept

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """P Q^T."""
        read = Tree()
        for k, x in like.items():
            if self.is_thin(x):
                wide = torch.promote_types(x.dtype, torch.float32)
                product = code[k + LEFT].to(wide) @ code[k + RIGHT].to(wide).T
                read[k] = product.reshape(x.shape).to(x.dtype)
            else:
                read[k] = code[k]
        return read


def _sides(x: Tensor) -> tuple[int, int]:
    """(m, n)."""
    m = x.shape[0] if x.dim() else 1
    return m, x.numel() // m if m else 0
