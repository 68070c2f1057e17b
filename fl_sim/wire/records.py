"""Trees and metrics <-> Flower's records, without needless copies. No paper."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_sim.tree import Tree
from fl_sim.wire.flower import Held

Record = TypeVar("Record", ArrayRecord, MetricRecord, ConfigRecord)


def arrays(model: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A tree as an ArrayRecord; dtypes are kept, tensors come to the CPU."""
    return ArrayRecord(
        {
            k: Array(np.ascontiguousarray(v.detach().cpu().numpy())) if v.ndim else Array(v.detach().cpu().numpy())
            for k, v in model.items()
        }
    )


def held(tree: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """As ``arrays``, for records that stay in this process: nothing is serialised unless someone asks. ``tree`` must not change."""
    record = ArrayRecord()
    for k, v in tree.items():
        record[k] = Held(v.detach().cpu().numpy())
    return record


def model(record: ArrayRecord) -> Tree:
    """An ArrayRecord as a tree on the CPU, whose tensors are the caller's own."""
    return {k: torch.from_numpy(np.asarray(v.numpy())) for k, v in record.items()}


def owned(record: ArrayRecord) -> Tree:
    """As ``model``, but what was made in this process for this one reader is handed on, not copied: the record is used up."""
    own = [
        v.values if isinstance(v, Held) and v.values.flags.writeable else np.asarray(v.numpy()) for v in record.values()
    ]
    return dict(zip(record, map(torch.from_numpy, own), strict=True))


_last: tuple[dict[str, tuple[Array, object]], Tree] = ({}, {})
"""The record that ``shared`` read last, as the very objects that it was made of, and its tree."""


def shared(record: ArrayRecord) -> Tree:
    """As ``model``, but a record that was the last one read is not read again: strategy, grid and driver share a round's model.

    The tensors must never be written to: others have them too. The dict is the caller's own.
    """
    global _last
    known, tree = _last
    if len(known) != len(record) or any(
        k not in known or known[k][0] is not v or known[k][1] is not _content(v) for k, v in record.items()
    ):
        tree = {
            k: torch.from_numpy(v.values if isinstance(v, Held) else np.asarray(v.numpy())) for k, v in record.items()
        }
        _last = {k: (v, _content(v)) for k, v in record.items()}, tree
    return {k: tree[k] for k in record}


def _content(array: Array) -> object:
    """The object that an Array's content is."""
    return array.values if isinstance(array, Held) else array.data


def of(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """The records of one kind by name: ``content.array_records`` and its like at a tenth of their cost."""
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def numbers(content: RecordDict) -> dict[str, Any]:
    """All metrics of a message in one dict."""
    return merged(of(content, MetricRecord).values())


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays, without the headers of their serialised form."""
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values())


def metrics(values: Mapping[str, Any]) -> MetricRecord:
    """Python numbers as a MetricRecord, which takes int and float only; NaN is kept: it is a client's report."""
    return MetricRecord(
        {k: v if isinstance(v, int) and not isinstance(v, bool) else float(v) for k, v in values.items()}
    )


def config(values: Mapping[str, Any]) -> ConfigRecord:
    """Settings as a ConfigRecord; None is left out."""
    return ConfigRecord({k: v for k, v in values.items() if v is not None})


def problem(
    record: ArrayRecord,
    sent: Mapping[str, torch.Tensor] | None,
    decoded: Mapping[str, torch.Tensor] | None = None,
    finite: bool = False,
) -> str:
    """Why a reply's arrays must not be pooled, or nothing: NaN or infinity; keys, shapes or dtypes unlike those sent.

    Byte strings in arrays (uint8, as tree ensembles travel) have a free shape. ``decoded`` : the record as a tree, where
    it is at hand; ``finite`` : that each number is finite is known.
    """
    if sent is not None and set(record) != set(sent):
        return f"wrong keys: missing {sorted(set(sent) - set(record))}, unknown {sorted(set(record) - set(sent))}"
    for key, array in record.items():
        like = None if sent is None else sent[key]
        value = array.numpy() if decoded is None else decoded[key].numpy()
        if like is not None and like.dtype != torch.uint8:
            wanted = str(like.dtype).removeprefix("torch.")
            if tuple(value.shape) != tuple(like.shape):
                return f"wrong shape: {key} is {tuple(value.shape)}, must be {tuple(like.shape)}"
            if str(value.dtype) != wanted:
                return f"wrong dtype: {key} is {value.dtype}, must be {wanted}"
        if not finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"NaN or infinity in {key}"
    return ""


def weight_problem(values: Mapping[str, Any], key: str = "num-examples") -> str:
    """Why a reply's weight must not be used, or nothing."""
    weight = values.get(key, 1)
    if not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight <= 0:
        return f"{key} = {weight!r}: a weight must be a positive finite number"
    return ""


def merged(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several records' entries in one dict; later ones win."""
    return {k: v for record in records for k, v in record.items()}
