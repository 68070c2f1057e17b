"""CUDA graphs of chunks that come again and again: one launch in the place of some thousand. No paper.

``vmap``'s own bookkeeping costs a processor several times what the kernels cost the GPU; a graph keeps the kernels and
drops the bookkeeping. The kernels are the same, and so are the bits.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_GRAPHS = 4
"""Graphs that are kept: each holds the memory of its chunk."""
MAX_KEYS = 1024
"""Kinds of chunks that are remembered."""
Function = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Recording:
    graph: Any
    function: Function
    """Keeps alive what the kernels read."""
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]
    notes: list[Any]


class GraphRecorder:
    """Runs functions of tensors on a GPU; one that comes a second time under the same key is recorded, and replayed from then on."""

    def __init__(self) -> None:
        self._recorded: dict[Hashable, _Recording | None] = {}
        self.refused = ""
        """Why a function could not be recorded: since then nothing is."""

    def __reduce__(self) -> tuple[type["GraphRecorder"], tuple[()]]:
        return GraphRecorder, ()  # what was recorded belongs to this process

    @staticmethod
    def takes(device: torch.device) -> bool:
        """Whether kernels of this kind of device can be recorded."""
        return device.type == "cuda"

    def __call__(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor], notes: list[Any]
    ) -> tuple[Tensor, ...]:
        """``function(*inputs)``; what fixes its kernels besides the inputs' values is in ``key``. The result is the caller's own.

        ``notes`` is what the function writes down beside its result; a replay writes the same.
        """
        if self.refused or key not in self._recorded:
            if not self.refused and len(self._recorded) < MAX_KEYS:
                self._recorded[key] = None
            return function(*inputs)
        recording = self._recorded[key]
        if recording is None:
            try:
                recording = _record(function, inputs, notes)
            except torch.OutOfMemoryError:
                self._recorded.clear()
                raise
            except Exception as error:
                self.refused = f"{type(error).__name__}: {error}"
                return function(*inputs)
            for other in [k for k, v in self._recorded.items() if v is not None][: 1 - MAX_GRAPHS or None]:
                self._recorded[other] = None
            self._recorded[key] = recording
        for held, given in zip(recording.inputs, inputs, strict=True):
            held.copy_(given)
        recording.graph.replay()
        notes[:] = recording.notes
        return tuple(x.clone() for x in recording.outputs)


def _record(function: Function, inputs: Sequence[Tensor], notes: list[Any]) -> _Recording:
    graph, held = torch.cuda.CUDAGraph(), [x.clone() for x in inputs]
    with torch.cuda.graph(graph):
        outputs = function(*held)
    return _Recording(graph, function, held, outputs, list(notes))
