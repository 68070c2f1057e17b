"""Attributes of a strategy -> JSON and tensors: the half of ``kept_attributes`` that writes."""

import base64
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import Array

from fl_sim.rounds.checkpoint_files.kept_attributes import (
    MADE_BY_CONSTRUCTOR,
    PLAIN_KINDS,
    RECORDS,
    SEQUENCES,
    Built,
    kept_of,
    name_of,
)
from fl_sim.tree import Tree
from fl_sim.wire.flower import Held


class Odd(TypeError):
    """A value that neither JSON nor tensors can hold."""


class Writer:
    """Turns attributes into JSON and tensors.

    ``tensors`` receives what is too large for JSON, by names that begin with ``strategy/``. ``objects`` numbers the
    objects that may be shared, by ``id``, in the order in which ``Reader`` meets them.
    """

    def __init__(self) -> None:
        self.tensors: Tree = {}
        self.objects: dict[int, int] = {}
        self._alive: list[object] = []
        self._begun: set[int] = set()
        """Containers that are being written and cannot be read back where they contain themselves (tuples)."""

    def attributes(self, kept: Mapping[str, Any], built: Built | None) -> tuple[list[Any], dict[str, Any]]:
        """(JSON of the attributes ``[[name, value], ...]``, the odd ones by name)."""
        rows, odd = [], {}
        for name, value in kept.items():
            before = len(self._alive), len(self.tensors)
            try:
                rows.append([name, self.attribute(name, value, built)])
            except Odd:  # what was written of it so far is taken back
                for dropped in self._alive[before[0] :]:
                    del self.objects[id(dropped)]
                del self._alive[before[0] :]
                for key in list(self.tensors)[before[1] :]:
                    del self.tensors[key]
                odd[name] = value
        return rows, odd

    def attribute(self, name: str, value: Any, built: Built | None) -> Any:
        """JSON of one attribute of a strategy. Raises Odd."""
        if built is not None and name in built.attributes:
            made = built.attributes[name]
            if value is made and isinstance(value, MADE_BY_CONSTRUCTOR):
                return ["as built", name_of(value)]
            if name in built.inside and type(value) is type(made):
                rows, odd = self.attributes(kept_of(value), built.inside[name])
                if odd:
                    raise Odd(name)
                return ["strategy", name_of(type(value)), rows]
        return self.value(value)

    def value(self, value: Any) -> Any:
        """JSON of a value. Raises Odd."""
        kind: Any = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if np.isfinite(value) else ["float", repr(value)]
        if kind is range:
            return ["range", value.start, value.stop, value.step]
        if kind is complex:
            return ["complex", value.real.hex(), value.imag.hex()]
        if kind is bytes:
            return ["bytes", base64.b64encode(value).decode()]
        if isinstance(value, np.generic) and value.dtype.kind in PLAIN_KINDS:
            return ["scalar", value.dtype.str, value.tobytes().hex()]
        if id(value) in self.objects:
            if id(value) in self._begun:
                raise Odd("a tuple that contains itself")
            return ["again", self.objects[id(value)]]
        self.objects[id(value)] = len(self._alive)
        self._alive.append(value)  # as long as it lives, no other object has its id
        return self.shared(value, kind)

    def shared(self, value: Any, kind: Any) -> Any:
        """JSON of an object that may occur again. Raises Odd."""
        if kind is list:
            return ["list", *map(self.value, value)]
        if kind is dict:
            return ["dict", *([self.value(k), self.value(v)] for k, v in value.items())]
        self._begun.add(id(value))
        try:
            return self.begun(value, kind)
        finally:
            self._begun.discard(id(value))

    def begun(self, value: Any, kind: Any) -> Any:
        """JSON of an object that is made once its content is known. Raises Odd."""
        name = str(kind.__name__)
        if SEQUENCES.get(name) is kind:
            return [name, *map(self.value, value)]
        if RECORDS.get(name) is kind:
            return [name, *([k, self.value(v)] for k, v in value.items())]
        if kind is torch.Tensor:
            return self.tensor(value)
        if kind is np.ndarray:
            return self.array(value)
        if kind is Held:
            return ["Held", self.array(value.values)]
        if kind is Array:
            data = torch.frombuffer(bytearray(value.data), dtype=torch.uint8) if value.data else torch.empty(0)
            return ["Array", value.dtype, list(value.shape), value.stype, self.store(data)]
        raise Odd(kind.__name__)

    def tensor(self, x: torch.Tensor) -> Any:
        """JSON of a tensor on the CPU; the order of its axes in memory is kept, because sums depend on it."""
        if x.device.type != "cpu" or x.layout != torch.strided or x.requires_grad or x.is_quantized:
            raise Odd("Tensor")
        dense = torch.empty_like(x).stride() == x.stride()
        return ["tensor", self.store(x), list(x.stride()) if dense and not x.is_contiguous() else None]

    def array(self, x: np.ndarray) -> Any:
        """JSON of an array; its bytes are stored as they are, because torch lacks some of NumPy's dtypes."""
        if x.dtype.kind not in PLAIN_KINDS or x.dtype.metadata:
            raise Odd("ndarray")
        order: Literal["C", "F"] = "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"
        data = torch.frombuffer(bytearray(x.tobytes(order)), dtype=torch.uint8) if x.size else torch.empty(0)
        return ["array", x.dtype.str, list(x.shape), order, self.store(data)]

    def store(self, x: torch.Tensor) -> str:
        """Keep a tensor under a new name; returns the name."""
        name = f"strategy/{len(self.tensors)}"
        self.tensors[name] = x
        return name
