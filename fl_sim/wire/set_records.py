"""Set metrics in Flower's records, which hold numbers and flat lists.

A number travels as it is, an undefined one as an empty list. A vector is a list; a matrix is the list of its numbers,
row by row, under its name, and its two sizes under ``NAME.shape``. Undefined numbers in a list are NaN.
"""

import math
from collections.abc import Mapping

from torch import Tensor

SHAPE = ".shape"
SETS = "set_metrics"
"""Name of the ConfigRecord in a client's reply. It is no MetricRecord, which strategies of Flower's would average."""
Flat = float | list[int] | list[float]
"""A set metric's value as it travels."""


def to_record(values: Mapping[str, Tensor]) -> dict[str, Flat]:
    """Values by name, (), (m,) or (m, k), as numbers and flat lists."""
    flat: dict[str, Flat] = {}
    for name, value in values.items():
        if value.ndim:
            flat[name] = value.flatten().tolist()
        else:
            flat[name] = value.item() if math.isfinite(value) else []
        if value.ndim == 2:
            flat[f"{name}{SHAPE}"] = list(value.shape)
    return flat


def from_record(record: Mapping[str, object]) -> dict[str, object]:
    """A record's entries as they are logged: matrices as lists of rows, undefined numbers as None.

    Entries that are no set metrics stay as they are.
    """
    nested: dict[str, object] = {}
    for name, value in record.items():
        shape = record.get(f"{name}{SHAPE}")
        if name.endswith(SHAPE) and isinstance(record.get(name.removesuffix(SHAPE)), list):
            continue
        if not isinstance(value, list):
            nested[name] = value
        elif isinstance(shape, list):
            plain = [x if math.isfinite(x) else None for x in value]
            nested[name] = [plain[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0])]
        else:
            nested[name] = [x if math.isfinite(x) else None for x in value] or None
    return nested


def record_problem(record: Mapping[str, object]) -> str:
    """Why a record of another process cannot be read by ``from_record``, or "".

    Values are numbers or lists of them, and a matrix has as many numbers as its two sizes say.
    """
    for name, value in record.items():
        if any(isinstance(x, (str, bytes, bool)) for x in (value if isinstance(value, list) else (value,))):
            return f"{SETS}: {name[:200]} is neither a number nor a list of numbers"
        shape = record.get(f"{name}{SHAPE}")
        if not isinstance(value, list) or shape is None:
            continue
        sizes = shape if isinstance(shape, list) else []
        if len(sizes) != 2 or any(type(x) is not int or x < 0 for x in sizes) or sizes[0] * sizes[1] != len(value):
            return f"{SETS}: {name[:200]} has {len(value)} numbers, and the sizes {shape!r}"[:300]
    return ""
