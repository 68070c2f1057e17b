"""Serialization for other processes: small objects are pickled, tensors travel beside the pickle as NumPy arrays.

Ray shares NumPy arrays between processes without a copy, but not tensors. Functions and classes that the other process
cannot import (those of a notebook) travel by value. A tensor keeps its strides and the type of its device.
"""

import importlib
import io
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim.kernels.leave_vmap import is_wrapped

LARGE = 100_000
"""Bytes from which a NumPy array travels beside the pickle too."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Packed(NamedTuple):
    """A serialized object."""

    body: bytes
    """The pickle."""
    arrays: Sequence[Any]
    """NumPy arrays, or what an ``ArraySharing`` function put in their place."""


ArraySharing = Callable[[np.ndarray, bool], object]
"""``(array, whether it is a tensor's memory)`` -> the array, or a reference into a shared store."""


def pack(value: object, share: ArraySharing = lambda array, is_tensor: array) -> Packed:
    """Serialize an object.

    The arrays of the result share memory with the tensors on the CPU: change none before the result has been sent.
    Raises what pickle raises for an object that cannot be pickled (an open file).
    """
    arrays: list[object] = []
    known: dict[object, tuple[int, np.ndarray]] = {}  # an array must live as long as its address is compared

    def index_of(array: np.ndarray, is_tensor: bool) -> int:
        key = identity(array)
        if key not in known:
            known[key] = len(arrays), array
            arrays.append(share(array, is_tensor))
        return known[key][0]

    def restore_arguments(value: object) -> object:
        """Arguments from which ``_restore`` rebuilds an object beside the pickle; () for an object that is pickled."""
        if type(value) is Tensor and value.layout == torch.strided and not is_wrapped(value):
            flat, stride = _flat(value.detach())
            return (
                "tensor",
                index_of(_array(flat.cpu()), True),
                str(value.dtype).removeprefix("torch."),
                tuple(value.shape),
                stride,
                value.device.type,
            )
        if type(value) is np.ndarray and value.nbytes >= LARGE and not value.dtype.hasobject:
            return "array", index_of(value, False)
        return ("device", value.type) if type(value) is torch.device else ()

    # imported late, because Ray is loaded only where it is used; its pickler handles all that a notebook may define
    pickler_class: Any = importlib.import_module("ray.cloudpickle").CloudPickler

    class _Pickler(pickler_class):  # type: ignore[misc]
        def reducer_override(self, value: object) -> object:
            arguments = restore_arguments(value)
            return (_restore, arguments) if arguments else super().reducer_override(value)

    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return Packed(file.getvalue(), arrays)


def identity(array: np.ndarray) -> object:
    """A key that is equal for arrays with the same address, shape, strides and dtype."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def unpack(packed: Packed, fetch: Callable[[list[Any]], list[np.ndarray]] = list, device: str = "") -> Any:
    """The object that ``pack`` serialized.

    Tensors are copies, except those that were replaced by references: their memory may be read-only and shared with
    other processes.

    Parameters
    ----------
    packed : Packed
        The result of ``pack``.
    fetch : Callable
        References -> the arrays that they stand for.
    device : str (default: "")
        Type of device for all tensors; empty: each tensor's own type.
    """
    shared = {i: item for i, item in enumerate(packed.arrays) if not isinstance(item, np.ndarray)}
    arrays = dict(enumerate(packed.arrays)) | dict(zip(shared, fetch(list(shared.values())), strict=True))
    restored: dict[object, object] = {}

    def restore(kind: str, value: Any, *layout: Any) -> object:
        if kind == "device":
            return torch.device(value)
        if kind == "array":
            return arrays[value]
        if (value, layout) not in restored:
            dtype, size, stride, device_type = layout
            flat = _tensor(arrays[value], value in shared, dtype)
            restored[value, layout] = flat.as_strided(size, stride).to(device or device_type)
        return restored[value, layout]

    class _Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            return restore if (module, name) == (__name__, _restore.__name__) else super().find_class(module, name)

    return _Unpickler(io.BytesIO(packed.body)).load()


def _restore(*arguments: object) -> object:
    """Placeholder in the pickle for the function of ``unpack`` that restores what travels beside the pickle."""
    raise pickle.UnpicklingError("a Packed object is read by unpack only")


def _flat(x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor's elements in the order of its memory, and its strides.

    A dense tensor such as channels-last keeps its order; one with gaps is copied first.
    """
    for y in (x, x.contiguous()):
        ordered = y.permute(sorted(range(y.ndim), key=y.stride().__getitem__, reverse=True))
        if ordered.is_contiguous():
            break
    return ordered.reshape(-1), y.stride()


def _array(x: Tensor) -> np.ndarray:
    """A tensor on the CPU as an array that shares its memory.

    For a dtype that NumPy lacks (bfloat16), the array holds its bits as integers.
    """
    try:
        return x.numpy()
    except TypeError:
        return x.view(_BITS[x.element_size()]).numpy()


def _tensor(array: np.ndarray, shared: bool, dtype: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # no code writes into the samples
        x = torch.from_numpy(np.asarray(array))
    return (x if shared else x.clone()).view(getattr(torch, dtype))
