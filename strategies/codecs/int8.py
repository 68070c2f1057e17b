"""int8: each coordinate as one of 255 whole numbers of steps, rounded up or down at random, so that the mean is right.

Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
NeurIPS 2017, arXiv:1610.02132 (stochastic rounding; here with the largest coordinate as the scale of each tensor).

    s = max |x| / 127,   code = floor(x / s + u),   u uniform in [0, 1) by the client's key,   decoded = s code

Unbiased: the mean of ``decoded`` over u is x; the error of a coordinate is below s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys

SCALES, LEVELS = "#scales", 127


@dataclass(frozen=True)
class Int8(Codec):
    """1 byte a coordinate, and 4 a tensor."""

    biased = False
    sends_all = True

    def form(self, like: Tree) -> Mapping[str, Form]:
        """Each tensor as int8, and the scales (tensors,)."""
        whole = {k: Form(tuple(x.shape), torch.int8) for k, x in like.items()}
        return {**whole, SCALES: Form((len(like),), torch.float32)}

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """Divide by the scale, add the draw, round down."""
        scales = [_scale(x) for x in update.values()]
        code: Tree = {}
        for number, ((k, x), scale) in enumerate(zip(update.items(), scales, strict=True)):
            words = rng.words(rng.key(keys.own, "int8", number)).to(x.device)
            steps = x / scale.to(x) if float(scale) else torch.zeros_like(x)
            code[k] = steps.add_(rng.uniform(words, tuple(x.shape), x.dtype)).floor_().clamp_(-LEVELS, LEVELS)
            code[k] = code[k].to(torch.int8)
        return {**code, SCALES: torch.stack(scales) if scales else torch.zeros(0)}, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """Multiply by the scale."""
        scales = code[SCALES]
        return {k: code[k].to(x.dtype) * scales[i].to(x.dtype) for i, (k, x) in enumerate(like.items())}

    def content_problem(self, code: Tree, like: Tree) -> str:
        """A scale below zero, or a number of steps that no coordinate has."""
        if bool((code[SCALES] < 0).any()):
            return "code: a scale below zero"
        return next((f"code: -128 in {k}" for k in like if bool((code[k] == -128).any())), "")


def _scale(x: Tensor) -> Tensor:
    """max |x| / 127 as a float32 (), rounded up, so that no coordinate has more than 127 steps; on the CPU."""
    exact = (x.abs().max() if x.numel() else torch.zeros((), dtype=x.dtype)).double().cpu() / LEVELS
    scale = exact.float()
    return torch.nextafter(scale, torch.tensor(torch.inf)) if scale.double() < exact else scale
