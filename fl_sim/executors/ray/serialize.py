"""Objects on their way to another process: small things pickled, tensors beside them as plain arrays. No paper.

Ray shares arrays between processes without a copy, and tensors it does not. Functions and classes that cannot be
imported there (a notebook's) travel by value. A tensor comes out with its strides, on the device type it had.
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

LARGE = 100_000
"""Bytes from which a NumPy array travels beside the pickle too."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Parcel(NamedTuple):
    """What travels."""

    body: bytes
    arrays: Sequence[Any]
    """NumPy arrays, or what ``lift`` put in their place."""


Lift = Callable[[np.ndarray, bool], Any]
"""``(array, whether it is a tensor's)`` -> the array itself, or what travels in its place: a reference into a shared store."""


def pack(thing: Any, lift: Lift = lambda array, tensor: array) -> Parcel:
    """``thing`` as a parcel.

    Arrays are no copies of tensors on the CPU: change none before the parcel was sent. Raises what pickle raises
    for a thing that cannot travel (an open file).
    """
    arrays: list[Any] = []
    known: dict[Any, tuple[int, np.ndarray]] = {}  # an array must live as long as its address is compared

    def place(array: np.ndarray, tensor: bool) -> int:
        key = identity(array)
        if key not in known:
            known[key] = len(arrays), array
            arrays.append(lift(array, tensor))
        return known[key][0]

    def beside(thing: Any) -> Any:
        if (
            type(thing) is Tensor
            and thing.layout == torch.strided
            and not torch._C._functorch.is_functorch_wrapped_tensor(thing)
        ):
            flat, stride = _flat(thing.detach())
            return (
                "tensor",
                place(_array(flat.cpu()), True),
                str(thing.dtype).removeprefix("torch."),
                tuple(thing.shape),
                stride,
                thing.device.type,
            )
        if type(thing) is np.ndarray and thing.nbytes >= LARGE and not thing.dtype.hasobject:
            return "array", place(thing, False)
        return ("device", thing.type) if type(thing) is torch.device else ()

    # here, because Ray is imported only where it is used; its pickler knows everything that a notebook may define
    pickler_class: Any = importlib.import_module("ray.cloudpickle").CloudPickler

    class _Pickler(pickler_class):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            how = beside(thing)
            return (_restore, how) if how else super().reducer_override(thing)

    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(thing)
    return Parcel(file.getvalue(), arrays)


def identity(array: np.ndarray) -> Any:
    """Equal for arrays that are the same memory seen in the same way."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def unpack(parcel: Parcel, fetch: Callable[[list[Any]], list[np.ndarray]] = list, device: str = "") -> Any:
    """The thing. Tensors are copies, but for those that were lifted: they may lie in read-only memory that others read too.

    ``fetch`` turns what was lifted into arrays again; ``device`` is where all tensors go, if not to the type of device they were on.
    """
    lifted = {i: item for i, item in enumerate(parcel.arrays) if not isinstance(item, np.ndarray)}
    arrays = dict(enumerate(parcel.arrays)) | dict(zip(lifted, fetch(list(lifted.values())), strict=True))
    made: dict[Any, Any] = {}

    def restore(kind: str, value: Any, *how: Any) -> Any:
        if kind == "device":
            return torch.device(value)
        if kind == "array":
            return arrays[value]
        if (value, how) not in made:
            dtype, size, stride, home = how
            made[value, how] = (
                _tensor(arrays[value], value in lifted, dtype).as_strided(size, stride).to(device or home)
            )
        return made[value, how]

    class _Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return restore if (module, name) == (__name__, _restore.__name__) else super().find_class(module, name)

    return _Unpickler(io.BytesIO(parcel.body)).load()


def _restore(*how: Any) -> Any:
    """Stands in a parcel for what restores the things beside it: only ``unpack`` can."""
    raise pickle.UnpicklingError("a parcel is opened by unpack")


def _flat(x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor's memory in its order, and its strides: channels-last stays so; one with gaps is copied without them."""
    for y in (x, x.contiguous()):
        ordered = y.permute(sorted(range(y.ndim), key=y.stride().__getitem__, reverse=True))
        if ordered.is_contiguous():
            break
    return ordered.reshape(-1), y.stride()


def _array(x: Tensor) -> np.ndarray:
    """A tensor on the CPU as an array that shares its memory; of a type that NumPy lacks (bfloat16), its bits."""
    try:
        return x.numpy()
    except TypeError:
        return x.view(_BITS[x.element_size()]).numpy()


def _tensor(array: np.ndarray, shared: bool, dtype: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nobody writes
        x = torch.from_numpy(np.asarray(array))
    return (x if shared else x.clone()).view(getattr(torch, dtype))
