"""fp16: each coordinate as a half-precision number, after a power of two for each tensor.

Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740 (scaling by a power of two, so that the
scale itself rounds nothing).

    e = the least whole number with max |x| < 2^e,   code = half(x 2^-e),   decoded = code 2^e

A coordinate of at least 2^-14 of the tensor's largest keeps 11 bits; smaller ones keep fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys

EXPONENTS = "#exponents"
MOST = 1074
"""Exponents are in -MOST..MOST, those of float64."""


@dataclass(frozen=True)
class Half(Codec):
    """2 bytes a coordinate, and 2 a tensor."""

    sends_all = True

    def form(self, like: Tree) -> Mapping[str, Form]:
        """Each tensor in half precision, and the exponents (tensors,)."""
        halves = {k: Form(tuple(x.shape), torch.float16) for k, x in like.items()}
        return {**halves, EXPONENTS: Form((len(like),), torch.int16)}

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """Divide by 2^e, round to the nearest half."""
        exponents = [_exponent(x) for x in update.values()]
        halves = {k: _times_power(x, -e).to(torch.float16) for (k, x), e in zip(update.items(), exponents, strict=True)}
        return {**halves, EXPONENTS: torch.tensor(exponents, dtype=torch.int16)}, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """Multiply by 2^e."""
        exponents = code[EXPONENTS].tolist()
        return {k: _times_power(code[k].to(x.dtype), e) for (k, x), e in zip(like.items(), exponents, strict=True)}

    def content_problem(self, code: Tree, like: Tree) -> str:
        """Exponents out of range."""
        exponents = code[EXPONENTS].tolist()
        return next((f"code: the exponent {e}, above {MOST}" for e in exponents if abs(e) > MOST), "")


def _times_power(x: Tensor, e: int) -> Tensor:
    """x 2^e, where 2^e itself need not be a number of x's dtype."""
    if abs(e) < 126:
        return x * 2.0**e
    return x * 2.0 ** (e // 2) * 2.0 ** (e - e // 2)


def _exponent(x: Tensor) -> int:
    largest = float(x.abs().max()) if x.numel() else 0.0
    return int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent) if largest else 0
