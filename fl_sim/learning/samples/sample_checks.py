"""Checks of a user's samples before any work: what is wrong, where (rows are counted from 0), and the cure.

Every door by which samples come in uses these functions: ``from_arrays``, and through it ``from_dataset``; tasks that a
user builds as a ``Task`` are checked by ``fl_sim.learning.samples.task_checks``.

Legend: N samples.
"""

import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl_sim.tree import Tree

WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Unsigned types that torch stores but hardly computes with, and the types that hold the same numbers."""


_ROWS = (np.ndarray, list, Tensor)
"""Types of one sample in a column of samples."""


class BadSamples(ValueError):
    """Samples that cannot be trained on; the message says what is wrong, where, and the cure."""


def raw(key: str, values: object) -> np.ndarray | Tensor:
    """``values`` as an array, or unchanged where it is a tensor (then without its graph, on the CPU).

    Raises BadSamples that names ``key`` for sparse matrices, masked entries, samples of different shapes, and what has
    no rows in an order, such as a set or a generator.
    """
    if isinstance(values, Tensor):
        return _plain(key, values)
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        row = first_row(np.ma.getmaskarray(values))
        raise BadSamples(f"{key} has masked entries, the first in row {row}; fill them in or drop these rows")
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise BadSamples(f"{key} is a sparse matrix; pass {key}.toarray()")
    if isinstance(values, Sequence) and len(values) and all(isinstance(v, Tensor) for v in values):
        shapes = sorted({tuple(v.shape) for v in values})
        if len(shapes) > 1:
            raise BadSamples(f"{key} has samples of the shapes {_some(shapes)}; they must be equal: pad or resize them")
        return torch.stack([v.detach().cpu() for v in values])
    try:
        array = np.asarray(values)
        if array.dtype.kind in "US" and isinstance(values, list | tuple):
            return np.array(values, dtype=object)  # NumPy turns numbers and NaN among words into words
    except ValueError as error:
        raise BadSamples(f"{key} has samples of different shapes; they must be equal: pad or resize them") from error
    if array.dtype.kind == "O" and array.ndim == 0:
        what = "None" if values is None else f"a {type(values).__name__}"
        raise BadSamples(f"{key} is {what}; it must be an array, a tensor, a list or a table, one row a sample")
    return _stacked(array)


def _plain(key: str, values: Tensor) -> Tensor:
    """A tensor without its graph on the CPU; refused where NumPy and torch could not compute with its numbers."""
    kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
    if kind != "strided":
        cure = "nested: pad it" if values.is_nested else f"{kind}: pass {key}.to_dense()"
        raise BadSamples(f"{key} is a tensor of another layout, {cure}")
    if values.is_meta or values.is_quantized:
        what = "without numbers (meta)" if values.is_meta else f"quantized; pass {key}.dequantize()"
        raise BadSamples(f"{key} is a tensor that is {what}")
    if values.is_floating_point() and values.dtype.itemsize < 2:
        raise BadSamples(f"{key} holds {_dtype(values)}, with which torch hardly computes; pass {key}.float()")
    return values.detach().cpu()


def _stacked(array: np.ndarray) -> np.ndarray:
    """(N, ...) from a column (N,) or (N, 1) of arrays or lists of equal shape, as tables hold them; else as it is."""
    if array.dtype.kind == "O" and array.ndim == 2 and array.shape[1] == 1 and isinstance(array[0, 0], _ROWS):
        array = array[:, 0]
    if array.dtype.kind != "O" or array.ndim != 1 or not len(array):
        return array
    if not all(isinstance(value, _ROWS) for value in array):
        return array
    try:
        return np.stack([np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value) for value in array])
    except (ValueError, TypeError):
        return array  # of different shapes; whoever needs numbers refuses it, with the place


def numbers_of(key: str, values: object, flags: torch.dtype = torch.float32) -> Tensor:
    """``values`` (N, ...) as a tensor of finite numbers, without a copy where its memory can be shared.

    Object arrays that hold numbers only become int64 or float64, unsigned types that torch hardly knows a wider signed
    one, and booleans ``flags``.

    Raises
    ------
    BadSamples
        For text, dates, missing values, NaN and infinity, each with its row, and where there are no samples.
    """
    array = raw(key, values)
    if isinstance(array, np.ndarray):
        array = as_tensor(_numeric(key, array, getattr(values, "columns", None)))
    if array.ndim == 0:
        raise BadSamples(f"{key} is a single value of type {type(values).__name__}; it must have one row a sample")
    if not len(array):
        raise BadSamples(f"{key} has no rows; it must have one row a sample")
    if not array.numel():
        raise BadSamples(f"{key} has rows of shape {tuple(array.shape[1:])}, which hold no number")
    if array.dtype == torch.uint64 and int(array.to(torch.int64).min()) < 0:
        raise BadSamples(f"{key} holds integers of 2^63 or more; pass them as float64")
    if array.dtype == torch.bool:
        array = array.to(flags)
    array = array.to(WIDER.get(array.dtype, array.dtype))
    check_finite(key, array)
    return array


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of an array's numbers; copied only where torch cannot read its memory (strides below 0, byte order)."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # training never writes into samples
        return torch.as_tensor(array)


def check_finite(key: str, values: Tensor) -> None:
    """Raise BadSamples that names ``key`` and the first row if ``values`` (N, ...) holds NaN or infinity."""
    if not (values.is_floating_point() or values.is_complex()) or not values.numel():
        return
    if not values.is_complex() and bool(torch.isfinite(torch.stack(torch.aminmax(values))).all()):
        return
    bad = ~torch.isfinite(values)
    rows = bad.reshape(len(bad), -1).any(1).nonzero().flatten()
    if not len(rows):
        return
    found = int(rows[0])
    nan = bool(torch.isnan(values[found]).any())
    count = f"one of {len(rows)} such rows" if len(rows) > 1 else "the only such row"
    what = "NaN" if nan else "infinity"
    raise BadSamples(f"{key} holds {what} in row {found}, {count}; drop such rows or fill in their values")


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Raise BadSamples unless all have as many rows as the first one."""
    (first, expected), *others = lengths.items()
    for name, length in others:
        if length != expected:
            raise BadSamples(f"{name} has {length} rows, {first} has {expected}; they must be equal")


def check_halves(train: Tree, test: Tree, shapes: bool = True) -> list[str]:
    """Compare training and test samples: x and y must have the same form in both, or a number would be wrong.

    Returns what is suspicious, but may be meant, as sentences. Without ``shapes``, samples of other shapes may be meant
    too: a recurrent network takes sequences of any length.

    Raises
    ------
    BadSamples
        Where shapes of samples differ, where x is stored as pixels or integers in one half only, and where x or y is
        scaled in one half only.
    """
    if not test or not len(test["x"]):
        return []
    if train["y"].is_floating_point() != test["y"].is_floating_point():
        kinds = (f"{key} holds {_dtype(half['y'])}" for key, half in (("y", train), ("y_test", test)))
        raise BadSamples(f"{', '.join(kinds)}; give both the same form, for instance by .to()")
    for key in ("x", "y") if shapes else ():
        ours, theirs = tuple(train[key].shape[1:]), tuple(test[key].shape[1:])
        if ours != theirs:
            raise BadSamples(f"{key} has rows of shape {ours}, {key}_test of shape {theirs}; they must be equal")
    x, x_test = train["x"], test["x"]
    if _kind(x) != _kind(x_test):
        forms = f"x holds {_kind(x)} ({_dtype(x)}), x_test {_kind(x_test)} ({_dtype(x_test)})"
        raise BadSamples(f"{forms}; give both the same form, for instance by astype")
    return [note for key in ("x", "y") for note in _scales(key, train[key], test[key])]


def first_row(bad: np.ndarray) -> int:
    """The first row of ``bad`` (N, ...) that holds True."""
    return int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])


def is_missing(value: Any) -> bool:
    """Whether a value stands for a missing one: None, NaN, pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating)) and value != value


def _kind(x: Tensor) -> str:
    """Pixels are scaled, integers reach the model as they are, and floats in the run's precision."""
    if x.dtype == torch.uint8:
        return "pixels 0..255"
    return "numbers" if x.is_floating_point() or x.is_complex() else "integers"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _scales(key: str, ours: Tensor, theirs: Tensor) -> list[str]:
    """Raise BadSamples where one half holds whole numbers up to 255 and the other fractions up to 1."""
    if _kind(ours) != "numbers" or ours.is_complex() or theirs.is_complex():
        return []
    halves = {key: _sampled(ours), f"{key}_test": _sampled(theirs)}
    pixels = [k for k, v in halves.items() if v.min() >= 0 and 100 < v.max() <= 255 and (v == v.round()).all()]
    shares = [k for k, v in halves.items() if v.min() >= 0 and v.max() <= 1 and (v != v.round()).any()]
    if pixels and shares:
        problem = f"{pixels[0]} holds whole numbers of 0..255, {shares[0]} numbers of 0..1"
        raise BadSamples(f"{problem}; scale both alike, for instance {pixels[0]} / 255")
    middle = {k: float(v.abs().median()) for k, v in halves.items()}
    if min(middle.values()) > 0 and max(middle.values()) > 50 * min(middle.values()):
        sizes = " and ".join(f"{v:.3g} in {k}" for k, v in middle.items())
        return [f"{key} and {key}_test differ in scale: the median of their absolute values is {sizes}"]
    return []


def _sampled(x: Tensor, most: int = 100_000) -> Tensor:
    """About ``most`` of a tensor's numbers, evenly spaced over its rows, as float64."""
    rows = x[:: max(1, x.numel() // most)].flatten()
    return rows[:: max(1, len(rows) // most)].double()


def _numeric(key: str, array: np.ndarray, columns: Any) -> np.ndarray:
    """An array of a type of numbers; ``columns`` are the names of a table's columns, or None."""
    kind = array.dtype.kind
    if kind in "USTMmV":
        what = {"M": "dates", "m": "times", "V": "records"}.get(kind, f"text, {_value(array)} in row 0")
        cure = f"turn it into numbers first; text that spells numbers: {key}.astype('float32')"
        raise BadSamples(f"{key} holds {what}; {cure}")
    if kind != "O":
        return array
    types = set(map(type, array.ravel().tolist()))
    wrong = {t for t in types if not issubclass(t, (numbers.Real, np.bool_)) and t.__name__ != "Decimal"}
    if wrong:
        raise BadSamples(f"{key} holds {_first_wrong(array, wrong, columns)}")
    whole = all(issubclass(t, (numbers.Integral, np.bool_)) for t in types)
    flags = all(issubclass(t, (bool, np.bool_)) for t in types)
    try:
        return array.astype(bool if flags else np.int64 if whole else np.float64)
    except OverflowError as error:
        raise BadSamples(f"{key} holds integers of 2^63 or more; pass them as float64") from error


def _first_wrong(array: np.ndarray, wrong: set[type], columns: Any) -> str:
    """What the first entry of a wrong type is, where it is, and the cure."""
    index = next(i for i, v in np.ndenumerate(array) if type(v) in wrong)
    value: object = array[index]
    place = ""
    if len(index) > 1:
        name = f" ({columns[index[1]]!r})" if columns is not None and len(index) == 2 else ""
        place = f", column {', '.join(map(str, index[1:]))}{name}"
    where = f"in row {index[0]}{place}"
    if isinstance(value, str | bytes):
        return f"text, {value!r} {where}; turn it into numbers first (one column a category, say) or drop the column"
    if is_missing(value):
        return f"a missing value ({value!r}) {where}; fill it in or drop the row"
    if isinstance(value, np.ndarray | Tensor | list | tuple):
        return f"samples of different shapes, the first {where}; they must be equal: pad or resize them"
    return f"a {type(value).__name__} {where}, which is no number; turn it into one or drop the column"


def _value(array: np.ndarray) -> str:
    return repr(array.ravel()[0].item()) if array.size else "of no rows"


def _some(items: Sequence[object], most: int = 3) -> str:
    shown = ", ".join(map(str, items[:most]))
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown
