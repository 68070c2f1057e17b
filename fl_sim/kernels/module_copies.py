"""Copies of modules, and modules in another dtype, that stay what they were.

``copy.deepcopy`` refuses attributes that autograd computed, and ``Module.to`` drops the imaginary part of complex
numbers and gives each name of a shared buffer a tensor of its own.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def copy_of(module: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """A deep copy of a module, which refers to the ``shared`` tensors themselves.

    An attribute that autograd computed (the ``weight`` of ``torch.nn.utils.weight_norm``) is copied without its graph;
    the module's hook computes it again before each use.
    """
    memo = {id(tensor): tensor for tensor in shared}
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
