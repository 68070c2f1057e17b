"""What a network returns: a tensor, or tensors in tuples, lists, dicts and dataclasses, nested in any way."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors(outputs: Any) -> list[Tensor]:
    """All tensors of nested outputs, in order. Raises TypeError for an object of another kind."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if outputs is None or isinstance(outputs, bool | int | float | str):
        return []
    if isinstance(outputs, tuple | list):
        return [x for part in outputs for x in tensors(part)]
    if isinstance(outputs, Mapping):
        return [x for part in outputs.values() for x in tensors(part)]
    if dataclasses.is_dataclass(outputs):
        return [x for field in dataclasses.fields(outputs) for x in tensors(getattr(outputs, field.name))]
    raise TypeError(f"outputs of the type {type(outputs).__name__}: no tensor, tuple, list, dict or dataclass")


def agree(a: Any, b: Any, rtol: float, atol: float) -> bool:
    """Whether nested outputs hold tensors of equal shapes and close values. Raises TypeError as ``tensors`` does."""
    first, second = tensors(a), tensors(b)
    return len(first) == len(second) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=rtol, atol=atol) for x, y in zip(first, second, strict=True)
    )


def to(outputs: Any, dtype: torch.dtype) -> Any:
    """Nested outputs with their floating-point tensors in ``dtype``; objects of other kinds are returned unchanged."""
    return mapped(lambda x: x.to(dtype) if x.is_floating_point() else x, outputs)


def mapped(function: Callable[[Tensor], Tensor], outputs: Any) -> Any:
    """Nested outputs with each tensor replaced by ``function`` of it; objects of other kinds are returned unchanged."""
    if isinstance(outputs, Tensor):
        return function(outputs)
    if isinstance(outputs, tuple | list):
        parts = [mapped(function, part) for part in outputs]
        if isinstance(outputs, list) or type(outputs) is tuple:
            return type(outputs)(parts)
        try:
            return type(outputs)(*parts)  # a NamedTuple
        except TypeError:
            return type(outputs)(parts)  # PyTorch's own, as of max(dim)
    if isinstance(outputs, Mapping):
        new: Any = copy.copy(outputs)  # keeps the class of Hugging Face's ModelOutput
        for key, part in outputs.items():
            new[key] = mapped(function, part)
        return new
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        fields = {field.name: mapped(function, getattr(outputs, field.name)) for field in dataclasses.fields(outputs)}
        return dataclasses.replace(outputs, **fields)
    return outputs
