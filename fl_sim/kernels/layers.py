"""Replacements of PyTorch's layers: dropout keyed by the step, and faster forms for one client or for many clients.

A model is written with ``nn.Dropout`` and ``nn.Conv2d``; the replacements compute the same function.

Legend: B batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.kernels import client_gradients, low_rank, patches, winograd
from fl_sim.kernels.module_copies import copy_of

try:
    from torch.nn.modules.batchnorm import _BatchNorm

    BATCH_NORMS: tuple[type[nn.Module], ...] = (_BatchNorm,)
except ImportError:  # then a subclass of the private base class, as some libraries have it, is not recognised
    BATCH_NORMS = (
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        *(nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d),
    )

HAS_TENSOR_DICTS = vars(nn.Module()).keys() >= {"_parameters", "_buffers"}
"""Whether a module keeps its tensors in these dicts; else ``FunctionalModule`` calls ``torch.func.functional_call``."""


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a module contains BatchNorm of any kind."""
    return any(isinstance(m, BATCH_NORMS) for m in module.modules())


class Dropout(nn.Module):
    """Inverted dropout whose mask is a function of a key that is passed in (Srivastava et al., JMLR 2014)."""

    words: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.calls = 0
        """Calls in the present forward pass: each has a mask of its own."""
        self.register_buffer("words", torch.zeros(2, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; the mask of element i of the batch does not depend on the batch's length."""
        if not self.training or self.p == 0:
            return x
        words = rng.fold(self.words, self.calls) if self.calls else self.words
        self.calls += 1
        kept = rng.keep_mask(words, tuple(x.shape), self.p, torch.promote_types(x.dtype, torch.float32))
        return x * kept.mul_(1 / (1 - self.p) if self.p < 1 else 0.0).to(x.dtype)


def with_keyed_dropout(module: nn.Module) -> nn.Module:
    """Replace every ``nn.Dropout`` inside ``module`` (in place) by ``Dropout``, which has a key; returns ``module``.

    A layer that occurs twice in one container becomes two, each with a key of its own.
    """
    for name, child in [(k, m) for k, m in vars(module).get("_modules", {}).items() if m is not None]:
        module.__setattr__(name, Dropout(child.p) if type(child) is nn.Dropout else with_keyed_dropout(child))
    return module


def replaced(module: nn.Module) -> nn.Module:
    """``module`` (in place) with keyed dropout, and with embeddings whose gradients are not sparse."""
    for layer in module.modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            layer.sparse = False  # no optimiser here takes sparse gradients, nor does vmap
    return with_keyed_dropout(module)


def copy_sharing_tensors(module: nn.Module) -> nn.Module:
    """A copy of a module with the same parameters and buffers, not copies of them."""
    return copy_of(module, (*module.parameters(), *module.buffers()))


class FunctionalModule:
    """A module as a function of its tensors: ``torch.func.functional_call`` in half the time."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
        first: dict[int, str] = {}  # a parameter that occurs twice has the name of its first occurrence
        self._places = [
            (owner, kind, leaf, first.setdefault(id(tensor), f"{prefix}.{leaf}" if prefix else leaf))
            for prefix, owner in module.named_modules()
            for kind in ("_parameters", "_buffers")
            for leaf, tensor in owner.__dict__.get(kind, {}).items()
            if tensor is not None
        ]
        self._buffers = frozenset(name for name, _ in module.named_buffers())
        self._dropouts = [layer for layer in module.modules() if isinstance(layer, Dropout)]
        tensors = (*module.named_parameters(), *module.named_buffers())
        self._complexes = tuple(name for name, tensor in tensors if tensor.is_complex())

    def __call__(self, values: Mapping[str, Tensor], x: Tensor) -> Any:
        """``module(x)`` with ``values`` by name in the place of its own parameters and buffers.

        A complex tensor's value is a pair of real numbers, with a last axis of 2. In training mode, a buffer's new
        value is written into the given one, also where the network assigns it (``self.mean = ...``).
        """
        for layer in self._dropouts:
            layer.calls = 0
        if self._complexes:
            pairs = {name: values[name] for name in self._complexes if name in values}
            values = {**values, **{name: torch.view_as_complex(pair.contiguous()) for name, pair in pairs.items()}}
        if not HAS_TENSOR_DICTS:
            known = {name: value for name, value in values.items() if name in self._names}
            outputs = torch.func.functional_call(self.module, known, (x,))
            if self._buffers and self.module.training:
                _keep_assigned({name: known[name] for name in self._buffers if name in known}, values)
            return outputs
        places = [(owner.__dict__[kind], leaf, name) for owner, kind, leaf, name in self._places if name in values]
        own = [tensors[leaf] for tensors, leaf, _ in places]
        try:
            for tensors, leaf, name in places:
                tensors[leaf] = values[name]
            outputs = self.module(x)
            if self._buffers and self.module.training:
                assigned = {name: tensors[leaf] for tensors, leaf, name in places if name in self._buffers}
                _keep_assigned(assigned, values)
            return outputs
        finally:
            for (tensors, leaf, _), tensor in zip(places, own, strict=True):
                tensors[leaf] = tensor

    def with_layer(self, values: Mapping[str, Tensor], x: Tensor, layer: str) -> tuple[Any, Any]:
        """(outputs, the output of the layer of that name in its last call); ``layer`` "" is the whole network.

        Raises ValueError where there is no such layer, or the network did not call it.
        """
        known = dict(self.module.named_modules())
        if layer not in known:
            raise ValueError(f"layer {layer!r}: the network has {', '.join(name for name in known if name)}")
        seen: list[Any] = []
        handle = known[layer].register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            outputs = self(values, x)
        finally:
            handle.remove()
        if not seen:
            raise ValueError(f"layer {layer!r}: the network did not call it")
        return outputs, seen[-1]


def _keep_assigned(buffers: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write the tensors that a network has assigned to buffers into ``values``. Raises ValueError for a new shape."""
    for name, tensor in buffers.items():
        if tensor is not values[name]:
            if tensor.shape != values[name].shape:
                shapes = f"{tuple(values[name].shape)} to {tuple(tensor.shape)}"
                raise ValueError(f"the network changes buffer {name} from shape {shapes}; its shape must stay")
            values[name].copy_(tensor.detach())


def one_client_form(module: nn.Module) -> nn.Module | None:
    """A copy of a module for one client at a time on a CPU, or None where no layer would be faster.

    Images are channels-last in memory, and layers are those of ``winograd`` and ``low_rank`` where these support them.
    """
    module, is_faster = copy_sharing_tensors(module), False
    for m in module.modules():
        if type(m) is nn.Conv2d and winograd.supports(m):
            m.__class__ = winograd.Conv3x3
        elif type(m) is nn.Linear and low_rank.supports(m):
            m.__class__ = low_rank.Linear
        elif isinstance(m, nn.MaxPool2d):
            m.register_forward_hook(_gradient_channels_last)
        is_faster |= isinstance(m, nn.Conv2d | low_rank.Linear)
    module.register_forward_pre_hook(_inputs_channels_last)
    return module if is_faster else None


def many_clients_form(module: nn.Module, kind: str) -> nn.Module:
    """A copy of a module for many clients at once under ``vmap``.

    ``kind`` is the type of device: with ``cpu``, linear layers are those of ``client_gradients``; with ``cuda``,
    convolutions are those of ``patches``.
    """
    module = copy_sharing_tensors(module)
    for m in module.modules():
        if kind == "cuda" and type(m) is nn.Conv2d and patches.supports(m):
            m.__class__ = patches.Conv2d
        elif kind == "cpu" and type(m) is nn.Linear and "weight" in dict(m.named_parameters(recurse=False)):
            # a weight that is computed from others (weight_norm) must stay in their graph
            m.__class__ = client_gradients.Linear
    return module


def _channels_last(x: Tensor) -> Tensor:
    """Images (B, channels, height, width) in channels-last memory, which most layers keep; other ``x`` unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _inputs_channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(_channels_last, inputs))


def _gradient_channels_last(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Make the gradient of an output channels-last too.

    Where a flattening follows, the gradient has another layout, and the backward pass of max pooling would copy four
    times as much.
    """
    if output.requires_grad:
        output.register_hook(_channels_last)  # type: ignore[no-untyped-call]
