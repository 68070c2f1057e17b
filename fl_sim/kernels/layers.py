"""Layers in the place of PyTorch's: keyed dropout for all engines, faster forms for one client at a time on a CPU and for
many at once on a GPU. No paper.

A model's author writes ``nn.Dropout`` and ``nn.Conv2d``; the replacements compute the same function.

Legend: B batch.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.kernels import client_gradients, low_rank, patches, winograd


class Dropout(nn.Module):
    """Inverted dropout whose mask is a function of a key handed in (Srivastava et al., JMLR 2014)."""

    words: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("words", torch.zeros(2, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; the mask of element i of the batch does not depend on the batch's length."""
        if not self.training or self.p == 0:
            return x
        kept = rng.keep_mask(self.words, tuple(x.shape), self.p, torch.promote_types(x.dtype, torch.float32))
        return x * kept.mul_(1 / (1 - self.p) if self.p < 1 else 0.0).to(x.dtype)


def with_keyed_dropout(module: nn.Module) -> nn.Module:
    """Replace every ``nn.Dropout`` below ``module`` (in place) by the keyed one."""
    for name, child in module.named_children():
        module.__setattr__(name, Dropout(child.p) if type(child) is nn.Dropout else with_keyed_dropout(child))
    return module


def copy_sharing_tensors(module: nn.Module) -> nn.Module:
    """A copy that shares its tensors."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


class FunctionalModule:
    """A module as a function of its tensors: ``torch.func.functional_call`` at half the cost."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        first: dict[int, str] = {}  # a parameter that occurs twice goes by the name of its first place
        self._places = [
            (owner, kind, leaf, first.setdefault(id(tensor), f"{prefix}.{leaf}" if prefix else leaf))
            for prefix, owner in module.named_modules()
            for kind in ("_parameters", "_buffers")
            for leaf, tensor in owner.__dict__[kind].items()
            if tensor is not None
        ]

    def __call__(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``module(x)`` with ``values`` by name in the place of its own parameters and buffers."""
        places = [(owner.__dict__[kind], leaf, name) for owner, kind, leaf, name in self._places if name in values]
        own = [place[leaf] for place, leaf, _ in places]
        try:
            for place, leaf, name in places:
                place[leaf] = values[name]
            outputs: Tensor = self.module(x)
            return outputs
        finally:
            for (place, leaf, _), tensor in zip(places, own, strict=True):
                place[leaf] = tensor


def one_client_form(module: nn.Module) -> nn.Module | None:
    """A copy for one client at a time on a CPU: channels last in memory, faster layers where ``winograd`` or ``product`` suits.

    None where nothing would be gained.
    """
    module, gains = copy_sharing_tensors(module), False
    for m in module.modules():
        if type(m) is nn.Conv2d and winograd.suits(m):
            m.__class__ = winograd.Conv3x3
        elif type(m) is nn.Linear and low_rank.suits(m):
            m.__class__ = low_rank.Linear
        elif isinstance(m, nn.MaxPool2d):
            m.register_forward_hook(_gradient_too)
        gains |= isinstance(m, nn.Conv2d | low_rank.Linear)
    module.register_forward_pre_hook(_channels_last)
    return module if gains else None


def many_clients_form(module: nn.Module, kind: str) -> nn.Module:
    """A copy for many clients at once: on a CPU linear layers as ``batched`` has them, on a GPU convolutions as ``patches`` has them."""
    module = copy_sharing_tensors(module)
    for m in module.modules():
        if kind == "cuda" and type(m) is nn.Conv2d and patches.suits(m):
            m.__class__ = patches.Conv2d
        elif kind == "cpu" and type(m) is nn.Linear:
            m.__class__ = client_gradients.Linear
    return module


def _last(x: Tensor) -> Tensor:
    """Pictures (B, channels, height, width) in another order in memory; most layers hand it on."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(_last, inputs))


def _gradient_too(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """What comes back from a flattening is in the old order; max pooling would then copy four times as much."""
    if output.requires_grad:
        output.register_hook(_last)  # type: ignore[no-untyped-call]
