"""JSON and tensors -> attributes of a strategy: the half of ``kept_attributes`` that reads, and runs no code."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array

from fl_sim.rounds.checkpoint_files.kept_attributes import PLAIN_KINDS, RECORDS, SEQUENCES, AsBuilt, Inner


class Reader:
    """The reverse of ``Writer``. Raises errors of many kinds (KeyError, ValueError ...) for what it did not write."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.objects: list[object] = []

    def attributes(self, rows: list[Any]) -> dict[str, object]:
        """The attributes by name, with ``AsBuilt`` and ``Inner`` in place of what only the restored strategy has."""
        return {name: self.value(value) for name, value in rows}

    def value(self, json: Any) -> Any:
        """A value from its JSON."""
        if not isinstance(json, list):
            return json
        kind, *rest = json
        if kind == "strategy":
            return Inner(rest[0], self.attributes(rest[1]))
        if kind in SIMPLE:
            return SIMPLE[kind](*rest)
        if kind == "again":
            return self.objects[rest[0]]
        number = len(self.objects)
        made: Any = {"list": list, "dict": dict}.get(kind, lambda: None)()
        self.objects.append(made)  # before its content, as it was numbered
        if kind == "list":
            made.extend(map(self.value, rest))
        elif kind == "dict":
            made.update([(self.value(k), self.value(v)) for k, v in rest])
        else:
            made = self.objects[number] = self.made(kind, rest)
        return made

    def made(self, kind: str, rest: list[Any]) -> Any:
        """An object that may occur again and cannot contain itself."""
        if kind in SEQUENCES:
            return SEQUENCES[kind](map(self.value, rest))
        if kind in RECORDS:
            return RECORDS[kind]({k: self.value(v) for k, v in rest})
        if kind == "tensor":
            name, stride = rest
            x = self.tensors[name]
            return x if stride is None else torch.empty_strided(x.shape, stride, dtype=x.dtype).copy_(x)
        if kind == "array":
            return self.array(*rest)
        if kind == "Held":
            return Array(self.array(*rest[0][1:]))
        if kind == "Array":
            dtype, shape, stype, name = rest
            return Array(dtype, tuple(shape), stype, bytes(self.tensors[name].numpy().tobytes()))
        raise ValueError(f"unknown kind {kind!r}")

    def array(self, dtype: str, shape: list[int], order: Any, name: str) -> np.ndarray:
        """An array that owns its memory."""
        return np.ndarray(shape, plain_dtype(dtype), bytearray(self.tensors[name].numpy().tobytes()), order=order)


def plain_dtype(text: str) -> "np.dtype[Any]":
    """A dtype whose bytes are its values. Raises ValueError for another."""
    dtype = np.dtype(text)
    if dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"dtype {text!r}")
    return dtype


SIMPLE: dict[str, Callable[..., Any]] = {
    "float": float,
    "range": range,
    "complex": lambda real, imag: complex(float.fromhex(real), float.fromhex(imag)),
    "bytes": lambda text: base64.b64decode(text),
    "scalar": lambda dtype, data: np.frombuffer(bytes.fromhex(data), plain_dtype(dtype))[0],
    "as built": AsBuilt,
}
"""Kinds of values that are made from JSON alone."""
