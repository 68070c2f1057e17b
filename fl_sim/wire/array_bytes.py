"""Arrays of a reply: opened without trust in what they declare, and compared with what the server expects.

Nothing is allocated for an array before its declared size agrees with the bytes that are there, and nothing is
unpickled.
"""

import io
import math
from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from fl_sim.wire.flower import Held, dtype_name

SERIALISED = "numpy.ndarray"
"""The only form of serialised arrays that is read: NumPy's file format."""
MOST_EXACT = 2**53
"""The largest integer up to which float64, in which integers are averaged, holds every integer."""
_MAGIC, _PICKLE, _ZIP = b"\x93NUMPY", b"\x80", b"PK"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def opened(name: str, array: Array) -> np.ndarray:
    """The values of the array ``name``; an array that was made in this process is not read again.

    The result shares the array's bytes and must not be written to. Raises ValueError, whose text begins with the name,
    for a pickle, an array of Python objects, a damaged header, and a header that declares another dtype, shape or size
    than the record or than there are bytes.
    """
    if isinstance(array, Held):
        return array.values
    data, says = array.data, f"{str(array.dtype)[:40]} {_short(array.shape)}"
    if array.stype != SERIALISED:
        raise ValueError(f"{name} is serialised as {str(array.stype)[:40]!r}, which is never read; only {SERIALISED!r}")
    if not data.startswith(_MAGIC):
        kinds = {_PICKLE: "a pickle, which is never read", _ZIP: "a zip archive, which is never read"}
        what = next((kind for start, kind in kinds.items() if data.startswith(start)), "no NumPy array")
        raise ValueError(f"{name} is {what}")
    dtype, shape, fortran, start = _header(name, data)
    declared = math.prod(shape) * dtype.itemsize
    if declared != len(data) - start:
        raise ValueError(f"{name} declares {dtype} {_short(shape)}, {declared} bytes; {len(data) - start} are there")
    declares = array.dtype != "" or tuple(array.shape) != ()  # Flower's API before messages declares neither
    if declares and (str(dtype), shape) != (array.dtype, tuple(array.shape)):
        raise ValueError(f"{name} is said to be {says}, and its bytes are {dtype} {_short(shape)}")
    try:
        flat = np.frombuffer(data, dtype, offset=start) if declared else np.empty(0, dtype)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    except ValueError as error:
        raise ValueError(f"{name} has a shape that no array can have: {_short(shape)}") from error


def _header(name: str, data: bytes) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """(dtype, shape, whether the order is Fortran's, where the values begin) of NumPy's file format."""
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # a literal that Python's parser refuses raises one of many kinds
        raise ValueError(f"{name} has a header that cannot be read: {type(error).__name__}: {error}"[:300]) from error
    if dtype.hasobject:
        raise ValueError(f"{name} is an array of Python objects (a pickle), which is never read")
    if any(size < 0 for size in shape):
        raise ValueError(f"{name} declares a negative size: {_short(shape)}")
    return dtype, shape, fortran, file.tell()


def values_of(record: ArrayRecord, opaque: bool = False) -> dict[str, np.ndarray]:
    """All arrays of a record, opened. Raises ValueError as ``opened`` does.

    ``opaque`` : whether an array that is serialised in another form than NumPy's is given as its bytes, unread.
    """
    return {
        name: np.frombuffer(array.data, np.uint8) if opaque and array.stype != SERIALISED else opened(name, array)
        for name, array in record.items()
    }


def form_problem(
    values: Mapping[str, np.ndarray],
    like: Mapping[str, torch.Tensor],
    optional: Collection[str] = (),
    free_bytes: bool = True,
) -> str:
    """How names, shapes or dtypes differ from those of ``like``; "" where they agree.

    ``optional`` : names in ``like`` that may be missing. ``free_bytes`` : whether arrays that ``like`` has as bytes
    (uint8, in which ensembles of decision trees are sent) may have any shape and dtype.
    """
    if values.keys() != like.keys() and (
        (missing := sorted(set(like) - set(values) - set(optional))) or not values.keys() <= like.keys()
    ):
        unknown = sorted(set(values) - set(like))
        return f"wrong keys: missing {_short(missing)}, unknown {_short(unknown)}"
    for key, value in values.items():
        sent = like[key]
        if free_bytes and sent.dtype == torch.uint8:
            continue
        if value.shape != sent.shape:
            return f"wrong shape: {key} is {_short(value.shape)}, must be {tuple(sent.shape)}"
        wanted = dtype_name(sent.dtype).removeprefix("torch.")
        if dtype_name(value.dtype) != wanted:
            cure = f"as it was sent; reply with .astype({wanted!r})"
            return f"wrong dtype: {key} is {value.dtype}, must be {wanted}, {cure}"
    return ""


@np.errstate(all="ignore")
def size_problem(values: Mapping[str, np.ndarray], combined: bool) -> str:
    """Which array holds NaN or infinity, or "".

    Where replies are ``combined`` by a pool or an average, also which holds values so large that the sum of their
    squares is near or beyond the dtype's limit (float16 is measured as float32), or integers that float64 rounds.
    """
    for key, value in values.items():
        kind = value.dtype.kind
        if kind in "fc" and not (combined and kind == "f" and _moderate(value)):
            if not np.isfinite(value).all():
                return f"NaN or infinity in {key}"
            if combined and kind == "f":
                what = f"values up to {np.abs(value).max():.3g} in {key}"
                return f"{what}, too large for sums of squares in {value.dtype}"
        if combined and kind in "iu" and value.dtype.itemsize == 8 and value.size:
            largest = max(abs(int(value.min())), abs(int(value.max())))
            if largest > MOST_EXACT:
                return f"values up to {largest} in {key}, which the float64 of an average does not hold"
    return ""


def _moderate(value: np.ndarray) -> bool:
    """Whether a sum of squares stays a factor 16 below the dtype's limit; False for NaN and infinity."""
    flat = value.ravel(order="K")
    flat = flat.astype(np.float32) if flat.dtype.itemsize < 4 else flat
    return bool(float(np.dot(flat, flat)) * 16 <= _largest(flat.dtype))


@cache
def _largest(dtype: np.dtype) -> float:
    """The largest finite number of a dtype."""
    return float(np.finfo(dtype).max)


def _short(value: object) -> str:
    """A value as text of at most 200 characters."""
    text = str(tuple(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 200 else f"{text[:200]}..."
