"""Checks of what a user says about samples besides the samples: sizes, labels and axes by number, names of columns."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from fl_sim.learning.samples.sample_checks import BadSamples


def whole(key: str, value: object, least: int | None = None) -> int | None:
    """``value`` as an int, or None where it is None. Raises BadSamples that names ``key`` for all but whole numbers."""
    plain = value.item() if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else value
    if plain is None or (isinstance(plain, int) and not isinstance(plain, bool) and (least is None or plain >= least)):
        return plain
    bound = "" if least is None else f" of {least} or more"
    raise BadSamples(f"{key} = {value!r}: must be an integer{bound}")


def share(key: str, value: Any) -> float:
    """``value`` as a share. Raises BadSamples that names ``key`` for all but numbers of 0 to below 1."""
    if isinstance(value, numbers.Real | np.generic) and not isinstance(value, str) and 0 <= float(value) < 1:
        return float(value)
    raise BadSamples(f"{key} = {value!r}: must be at least 0 and below 1, a share of the samples")


def check_axis(value: object) -> None:
    """Raise BadSamples unless ``value`` is a ``Task.class_axis``."""
    if isinstance(value, bool) or not (isinstance(value, str | int | np.integer) and value in ("auto", 1, -1)):
        raise BadSamples(f"class_axis = {value!r}: must be 'auto', 1 or -1")


def check_columns(x: Any, x_test: Any) -> None:
    """Raise BadSamples where two tables name their columns differently, or in another order.

    Columns that are numbered from 0, as pandas numbers those without names, may be any.
    """
    if not (hasattr(x, "iloc") and hasattr(x_test, "iloc") and hasattr(x, "columns") and hasattr(x_test, "columns")):
        return
    ours, theirs = [str(name) for name in x.columns], [str(name) for name in x_test.columns]
    if ours == theirs or len(ours) != len(theirs):  # another number of columns is refused as another shape
        return
    if [str(i) for i in range(len(ours))] in (ours, theirs):
        return
    place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    cure = "pass x_test[x.columns]" if sorted(ours) == sorted(theirs) else "give both the same"
    raise BadSamples(f"column {place} is {ours[place]!r} in x, {theirs[place]!r} in x_test; {cure}")


def row_remarks(x: Any, **others: Any) -> tuple[str, ...]:
    """A sentence for each table or column whose index has the labels of x's index in another order.

    Rows belong together by their place, as in NumPy; pandas would join them by their labels.
    """
    if not _has_index(x):
        return ()
    found = []
    for key, other in others.items():
        if not _has_index(other) or len(other) != len(x) or x.index.equals(other.index):
            continue
        if x.index.sort_values().equals(other.index.sort_values()):
            what = f"the index of {key} has the labels of x's index in another order"
            found.append(f"{what}; rows are taken by their place (for rows of the same label pass {key}.loc[x.index])")
    return tuple(found)


def _has_index(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "index")


def names(given: Sequence[object] | np.ndarray | None) -> np.ndarray | None:
    """A user's names, such as a list of them, as an array."""
    return given if given is None or isinstance(given, np.ndarray) else np.array(list(given), dtype=object)
