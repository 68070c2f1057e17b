"""Trees and metrics <-> Flower's records, without needless copies."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire.flower import Held, dtype_name, trusted

PLAIN = frozenset((bool, int, float, str, bytes))
"""Types of single values that a ConfigRecord takes."""
Record = TypeVar("Record", ArrayRecord, MetricRecord, ConfigRecord)


def encode(model: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A tree as an ArrayRecord that shares its memory: ``model`` must not be written to from then on.

    Dtypes are kept, and tensors are copied to the CPU where they are not on it. An array is serialised when its bytes
    are first read, which does not happen inside one process.
    """
    return trusted(ArrayRecord, {k: Held(_on_cpu(v).numpy()) for k, v in model.items()})


def _on_cpu(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_cpu and not x.requires_grad else x.detach().cpu()


def without(record: ArrayRecord, names: Collection[str]) -> ArrayRecord:
    """The record without the arrays of these names, which shares its memory; the record itself where there are none."""
    if not names:
        return record
    return trusted(ArrayRecord, {k: array for k, array in record.items() if k not in names})


def split(record: ArrayRecord) -> tuple[Tree, list[str]]:
    """(the arrays as a tree, as ``decode`` gives them; names of arrays that torch cannot hold, such as text)."""
    try:
        return decode(record), []
    except TypeError:
        known: Tree = {}
    for name, array in record.items():
        try:
            known |= decode(ArrayRecord({name: array}))
        except TypeError:  # of torch for a dtype, of Flower for a form of serialisation that is not NumPy's
            continue
    return known, [name for name in record if name not in known]


def digest(record: ArrayRecord, known: Tree) -> str:
    """``tree.digest(known)``; where torch cannot hold some of the arrays, a SHA-256 that covers these too."""
    others = [name for name in record if name not in known]
    if not others:
        return tree.digest(known)
    sha = hashlib.sha256(tree.digest(known).encode())
    for name in sorted(others):
        sha.update(f"{name}:{record[name].dtype}:{tuple(record[name].shape)};".encode() + record[name].data)
    return sha.hexdigest()


def decode(record: ArrayRecord) -> Tree:
    """An ArrayRecord as a tree on the CPU. Raises TypeError for a dtype that torch does not have.

    A record that was encoded in this process shares its memory with the tree, which then must not be written to, unless
    the record was made for this one reader (a block's partial pool). Any other record is deserialised.
    """
    shared = {k: v.values for k, v in record.items() if isinstance(v, Held) and v.values.flags.writeable}
    return {k: torch.from_numpy(shared[k] if k in shared else np.asarray(v.numpy())) for k, v in record.items()}


def of(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """The records of one kind by name, as ``content.array_records`` gives them, in a tenth of the time."""
    return {name: record for name, record in content.items() if kind in type(record).__mro__}  # type: ignore[misc]


def numbers(content: RecordDict) -> dict[str, Any]:
    """All metrics of a message in one dict."""
    return merged(of(content, MetricRecord).values())


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays, without the headers of their serialised form."""
    return sum(_num_bytes(array) for array in record.values())


def _num_bytes(array: Array) -> int:
    if isinstance(array, Held):
        return array.values.nbytes
    try:
        return math.prod(array.shape) * np.dtype(array.dtype or "?no dtype").itemsize
    except TypeError:  # Flower's API before messages leaves dtype and shape empty; other dtypes may be of packages
        return len(array.data)


def metrics(values: Mapping[str, Any]) -> MetricRecord:
    """Python numbers as a MetricRecord, which takes int and float only; NaN is kept, because a client may report it."""
    return MetricRecord(
        {k: v if isinstance(v, int) and not isinstance(v, bool) else float(v) for k, v in values.items()}
    )


def config(values: Mapping[str, Any]) -> ConfigRecord:
    """Settings as a ConfigRecord; None is left out, and NumPy's numbers and tensors of one number become Python's."""
    known = {k: v for k, v in values.items() if v is not None}
    if PLAIN.issuperset(map(type, known.values())):
        return trusted(ConfigRecord, known)
    return ConfigRecord({k: v.item() if getattr(v, "shape", None) == () else v for k, v in known.items()})


def problem(
    record: ArrayRecord,
    sent: Mapping[str, torch.Tensor] | None,
    decoded: Mapping[str, torch.Tensor] | None = None,
    finite: bool = False,
) -> str:
    """Why a reply's arrays must not be pooled; empty where they may be.

    Reasons are NaN, infinity, and keys, shapes or dtypes that differ from those sent. Arrays of bytes (uint8, in which
    ensembles of decision trees are sent) may have any shape.

    Parameters
    ----------
    record : ArrayRecord
        The reply's arrays.
    sent : Mapping or None
        The tree whose form the arrays must have; None: any form.
    decoded : Mapping, optional
        ``record`` as a tree, where the caller has it.
    finite : bool (default: False)
        Whether all numbers are known to be finite, and need no check.
    """
    if sent is not None and record.keys() != sent.keys():
        return f"wrong keys: missing {sorted(set(sent) - set(record))}, unknown {sorted(set(record) - set(sent))}"
    for key, array in record.items():
        if decoded is not None and key not in decoded:  # an array that torch cannot hold
            continue
        like = None if sent is None else sent[key]
        value = array.numpy() if decoded is None else decoded[key].numpy()
        if like is not None and like.dtype != torch.uint8:
            wanted = dtype_name(like.dtype).removeprefix("torch.")
            if tuple(value.shape) != tuple(like.shape):
                return f"wrong shape: {key} is {tuple(value.shape)}, must be {tuple(like.shape)}"
            if dtype_name(value.dtype) != wanted:
                return f"wrong dtype: {key} is {value.dtype}, must be {wanted}"
        if not finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"NaN or infinity in {key}"
    return ""


def merged(records: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Several records' entries in one dict; later ones win."""
    return {k: v for record in records for k, v in record.items()}
