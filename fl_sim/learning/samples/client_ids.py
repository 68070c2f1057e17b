"""The ids of natural clients as a user has them (sites, users, writers): numbered from 0, their names kept.

Legend: N samples, M natural clients.
"""

from datetime import date

import numpy as np
import torch

from fl_sim.learning.samples.sample_checks import BadSamples, first_row, is_missing, raw


def numbered(clients: object) -> tuple[np.ndarray, np.ndarray]:
    """The number of each sample's client, and the clients' names.

    Clients are numbered in the order of their sorted ids, so that a client's number depends on the set of ids alone.

    Parameters
    ----------
    clients : (N,) or (N, 1) of any type that sorts
        Numbers, text, dates. Floats that are whole numbers count as integers.

    Returns
    -------
    tuple
        (N,) int64 in 0..M-1, and (M,) names: integers, or text where the ids are no integers.

    Raises
    ------
    BadSamples
        For missing ids (None, NaN, NaT), with the row, and for ids that do not sort, such as numbers among names.
    """
    ids = raw("clients", clients)
    if isinstance(ids, torch.Tensor):
        array = (ids.float() if ids.dtype == torch.bfloat16 else ids).numpy()
    else:
        array = ids
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        shape = f"clients has the shape {array.shape}"
        raise BadSamples(f"{shape}; it must have one id a sample, (N,)")
    if array.dtype.kind == "O":
        return _numbered_objects(array)
    missing = np.isnat(array) if array.dtype.kind in "Mm" else array != array if array.dtype.kind == "f" else None
    if missing is not None and missing.any():
        _refuse(array, missing)
    known, owner = np.unique(array, return_inverse=True)
    return owner.reshape(-1), _names(known)


def _numbered_objects(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = array.tolist()
    missing = np.fromiter(map(is_missing, values), bool, len(values))
    if missing.any():
        _refuse(array, missing)
    kinds = {_kind(t) for t in set(map(type, values))}
    if len(kinds) > 1:
        rows = {kind: next(i for i, v in enumerate(values) if _kind(type(v)) == kind) for kind in sorted(kinds)}
        found = ", ".join(f"{values[i]!r} in row {i} ({kind})" for kind, i in rows.items())
        raise BadSamples(f"clients mixes kinds of ids: {found}; make them one kind, such as [str(c) for c in clients]")
    try:
        known = sorted(set(values))
    except TypeError as error:
        cure = "make them text, such as [str(c) for c in clients]"
        raise BadSamples(f"clients holds ids of type {type(values[0]).__name__}, which do not sort; {cure}") from error
    places = {v: i for i, v in enumerate(known)}
    owner = np.fromiter((places[v] for v in values), np.int64, len(values))
    if kinds == {"number"}:
        return owner, _names(np.array(known))
    return owner, np.array([_text(v) for v in known], dtype=object)


def _kind(kind: type) -> str:
    """Ids of one kind sort."""
    if issubclass(kind, int | float | np.number | np.bool_):
        return "number"
    kinds = {"str": str, "bytes": bytes, "date": date}  # np.str_ and enumerations of text too
    return next((name for name, parent in kinds.items() if issubclass(kind, parent)), kind.__name__)


def _names(known: np.ndarray) -> np.ndarray:
    """Integers stay integers; all else becomes text."""
    if known.dtype.kind in "iub":
        return known.astype(np.int64) if known.dtype.kind != "u" else known
    if known.dtype.kind == "f" and (known == np.round(known)).all() and (abs(known) < 2**53).all():
        return known.astype(np.int64)
    return np.array([_text(v) for v in (known if known.dtype.kind in "Mm" else known.tolist())], dtype=object)


def _text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _refuse(array: np.ndarray, missing: np.ndarray) -> None:
    row = first_row(missing)
    problem = f"clients has no id in row {row} ({array[row]}), as in {int(missing.sum())} of {len(array)} rows"
    raise BadSamples(f"{problem}; drop these rows, or give them an id of their own")
