"""Trees and metrics <-> Flower's records, without needless copies. No paper."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fl_sim.tree import Tree


def arrays(model: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A tree as an ArrayRecord; dtypes are kept, tensors come to the CPU."""
    return ArrayRecord(
        {k: Array(np.ascontiguousarray(v.detach().cpu().numpy())) if v.ndim else Array(v.detach().cpu().numpy()) for k, v in model.items()}
    )


def model(record: ArrayRecord) -> Tree:
    """An ArrayRecord as a tree on the CPU."""
    return {k: torch.from_numpy(np.asarray(v.numpy())) for k, v in record.items()}


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays, without the headers of their serialised form."""
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values())


def metrics(values: Mapping[str, Any]) -> MetricRecord:
    """Python numbers as a MetricRecord, which takes int and float only; NaN is kept: it is a client's report."""
    return MetricRecord({k: v if isinstance(v, int) and not isinstance(v, bool) else float(v) for k, v in values.items()})


def config(values: Mapping[str, Any]) -> ConfigRecord:
    """Settings as a ConfigRecord; None is left out."""
    return ConfigRecord({k: v for k, v in values.items() if v is not None})


def problem(record: ArrayRecord, sent: Mapping[str, torch.Tensor] | None) -> str:
    """Why a reply's arrays must not be pooled, or nothing: NaN or infinity; keys, shapes or dtypes unlike those sent.

    Byte strings in arrays (uint8, as tree ensembles travel) have a free shape.
    """
    if sent is not None and set(record) != set(sent):
        return f"wrong keys: missing {sorted(set(sent) - set(record))}, unknown {sorted(set(record) - set(sent))}"
    for key, array in record.items():
        like = None if sent is None else sent[key]
        value = array.numpy()
        if like is not None and like.dtype != torch.uint8:
            wanted = str(like.dtype).removeprefix("torch.")
            if tuple(value.shape) != tuple(like.shape):
                return f"wrong shape: {key} is {tuple(value.shape)}, must be {tuple(like.shape)}"
            if str(value.dtype) != wanted:
                return f"wrong dtype: {key} is {value.dtype}, must be {wanted}"
        if value.dtype.kind == "f" and not np.isfinite(value).all():
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
