"""Records repeated computations on a GPU as CUDA graphs: one launch instead of a thousand.

The bookkeeping of ``vmap`` costs the CPU several times what the kernels cost the GPU. A graph keeps the kernels and
drops the bookkeeping; the kernels, and so the bits, are the same.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_GRAPHS = 4
"""Graphs that are kept at once: each holds the memory of its chunk."""
MAX_KEYS = 1024
"""Largest number of keys that are remembered; a function whose key comes later is never recorded."""
Function = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Recording:
    graph: Any
    function: Function
    """Keeps alive the tensors that the kernels read besides the inputs."""
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]
    notes: list[object]


class GraphRecorder:
    """Runs functions of tensors on a GPU.

    On its second call with one key a function is recorded as a graph, and replayed from then on.
    """

    def __init__(self) -> None:
        self._recorded: dict[Hashable, _Recording | None] = {}
        self.refused = ""
        """Why a function could not be recorded; after that nothing is recorded any more. Empty: all could be."""
        self._reported: set[str] = set()

    def once(self, note: str) -> str:
        """``note`` the first time, "" after that: for an event that the log should hold once."""
        if note in self._reported:
            return ""
        self._reported.add(note)
        return note

    def __reduce__(self) -> tuple[type["GraphRecorder"], tuple[()]]:
        return GraphRecorder, ()  # another process gets a recorder without graphs, which belong to this process

    @staticmethod
    def supports(device: torch.device) -> bool:
        """Whether the kernels of this kind of device can be recorded."""
        return device.type == "cuda"

    def __call__(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor], notes: list[Any]
    ) -> tuple[Tensor, ...]:
        """Compute ``function(*inputs)``, or replay its graph.

        Parameters
        ----------
        key : Hashable
            Everything besides the values of the inputs that decides which kernels run.
        function : Callable
            Tensors -> a tuple of tensors.
        inputs : Sequence[Tensor]
            On the GPU; they are copied before a replay.
        notes : list
            A list that the function fills with Python objects besides its result; a replay fills it in the same way.

        Returns
        -------
        tuple[Tensor, ...]
            New tensors, which a later replay does not overwrite.
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
            for oldest in [k for k, v in self._recorded.items() if v is not None][: 1 - MAX_GRAPHS or None]:
                self._recorded[oldest] = None
            self._recorded[key] = recording
        for target, value in zip(recording.inputs, inputs, strict=True):
            target.copy_(value)
        recording.graph.replay()
        notes[:] = recording.notes
        return tuple(x.clone() for x in recording.outputs)


def _record(function: Function, inputs: Sequence[Tensor], notes: list[object]) -> _Recording:
    graph, own_inputs = torch.cuda.CUDAGraph(), [x.clone() for x in inputs]
    with torch.cuda.graph(graph):
        outputs = function(*own_inputs)
    return _Recording(graph, function, own_inputs, outputs, list(notes))
