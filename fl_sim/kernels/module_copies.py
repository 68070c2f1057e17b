"""Copies of modules, and modules in another dtype, that stay what they were.

``copy.deepcopy`` refuses attributes that autograd computed, and ``Module.to`` drops the imaginary part of complex
numbers and gives each name of a shared buffer a tensor of its own.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer


def copy_of(module: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """A deep copy of a module, which refers to the ``shared`` tensors themselves.

    An attribute that autograd computed (the ``weight`` of ``torch.nn.utils.weight_norm``) is copied without its graph;
    the module's hook computes it again before each use.
    """
    memo: dict[int, Tensor] = {id(tensor): tensor for tensor in shared}
    for buffer in module.buffers():
        if isinstance(buffer, UninitializedBuffer):  # lazy BatchNorm's, for which PyTorch has no copy
            blank: Any = UninitializedBuffer  # its types are wrong in PyTorch
            memo.setdefault(id(buffer), blank(device=buffer.device, dtype=buffer.dtype))
    for owner in module.modules():
        for value in vars(owner).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(module, memo)


def cast(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """``module.to(device, dtype)``, in place, where complex tensors stay complex and shared buffers stay one tensor."""
    buffers = [
        (owner, name, tensor)
        for owner in module.modules()
        for name, tensor in owner.named_buffers(recurse=False, remove_duplicate=False)
    ]
    names = {id(tensor) for _, _, tensor in buffers}
    tensors = [*module.parameters(), *(tensor for _, _, tensor in buffers)]
    if len(names) == len(buffers) and not any(tensor.is_complex() for tensor in tensors):
        return module.to(device, dtype)
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64

    def converted(x: Tensor) -> Tensor:
        return x.to(device, dtype if x.is_floating_point() else wide if x.is_complex() else x.dtype)

    for parameter in module.parameters():
        parameter.data = converted(parameter.data)
    made = {id(tensor): converted(tensor) for _, _, tensor in buffers}
    for owner, name, tensor in buffers:
        setattr(owner, name, made[id(tensor)])
    return module


def has_gradient_hook(parameter: Tensor) -> bool:
    """Whether ``register_hook`` or ``register_post_accumulate_grad_hook`` was called on a tensor."""
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(bool(getattr(parameter, name, None)) for name in names)


def has_backward_hook(module: nn.Module) -> bool:
    """Whether a layer has a hook on its backward pass (``register_full_backward_hook`` and the like)."""
    names = ("_backward_hooks", "_backward_pre_hooks")
    return any(bool(getattr(layer, name, None)) for layer in module.modules() for name in names)
