"""Finds out whether a network, a loss or a metric writes into the tensors that it is given.

A forward such as ``x.sub_(0.5)`` changes numbers that others read too: the next metric, the next step on the same
batch, the test set itself. ``fl_sim.learning.loss.Loss`` tries two samples before training. Where it sees a write, it
hands out copies; where it sees none, it hands out the tensors themselves, and reads their counters of writes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from fl_sim.kernels.client_gradients import HAS_VERSION
from fl_sim.kernels.layers import FunctionalModule
from fl_sim.kernels.leave_vmap import innermost, is_transformed
from fl_sim.kernels.outputs import mapped, tensors

Tensors = Mapping[str, Tensor]


@dataclass
class Writes:
    """What was written into when two samples were tried."""

    copies: bool = False
    """Whether something writes into inputs, targets or outputs, or raised: then copies are handed out."""
    parameters: set[str] = field(default_factory=set)
    """Parameters into which the network itself writes."""
    buffers: set[str] = field(default_factory=set)
    """Persistent buffers into which the network writes in training mode; all, where it raised."""
    hidden: set[str] = field(default_factory=set)
    """Buffers with ``persistent=False``, so no part of the model, that the network changes."""


def version(x: Tensor) -> int:
    """How often PyTorch's in-place operations wrote into a tensor, or into one that shares its memory.

    Under ``vmap`` they count in the tensor of all clients. A write through ``.data`` or NumPy does not count.
    """
    return (innermost(x) if is_transformed() else x)._version if HAS_VERSION else 0


class _Kept(NamedTuple):
    tensor: Tensor
    values: Tensor
    version: int


class Watched:
    """Tensors by name that are handed out, to learn later which of them were written into, in whatever way."""

    def __init__(self, tensors: Tensors) -> None:
        self._kept = {name: _Kept(x, x.detach().clone(), version(x)) for name, x in tensors.items()}

    @property
    def written(self) -> set[str]:
        """The names of the tensors that were written into, even if no value changed."""
        return {
            name
            for name, (x, values, before) in self._kept.items()
            if version(x) != before or not _equal(x.detach(), values)
        }


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def copied(value: Any) -> Any:
    """A copy of nested outputs that shares no memory; see ``fl_sim.kernels.outputs``."""
    return mapped(Tensor.clone, value)


def find_writes(
    networks: Sequence[FunctionalModule],
    outputs_of: Callable[[Any, dict[str, Tensor], bool], tuple[Any, Tensors]],
    functions: Sequence[Callable[..., object]],
    samples: Tensors,
    buffers: Sequence[str],
) -> Writes:
    """Try networks, losses and metrics on copies of ``samples``.

    Parameters
    ----------
    networks : Sequence[FunctionalModule]
        In training mode, and in evaluation mode.
    outputs_of : Callable
        ``(network, samples, whether it is in training mode) -> (outputs, transformed samples)``.
    functions : Sequence[Callable]
        Called as ``function(outputs, transformed samples)``.
    samples : Mapping
        x and y of a few samples, by name.
    buffers : Sequence[str]
        Names of persistent buffers, into which a network in training mode may write.
    """
    found = Writes()
    for network, training in zip(networks, (True, False), strict=True):
        data = copied(dict(samples))
        given = Watched(data)
        try:
            outputs, inputs = outputs_of(_watching(network, buffers if training else (), found), data, training)
            for function in functions:
                own = copied((outputs, dict(inputs)))
                handed = Watched({str(number): x for number, x in enumerate(tensors(own))})
                function(*own)
                found.copies |= bool(handed.written)
        except Exception:  # the probe of the run reports it; until then copies are right in any case
            found.copies = True
        found.copies |= bool(given.written)
    found.copies |= not found.parameters.isdisjoint(buffers)
    found.parameters -= set(buffers)
    return found


def _watching(network: FunctionalModule, own: Sequence[str], found: Writes) -> Callable[[Tensors, Tensor], Any]:
    """The network as a function that notes in ``found`` what it writes into, apart from the buffers ``own``."""

    def call(values: Tensors, x: Tensor) -> Any:
        parameters = Watched({k: v for k, v in values.items() if k not in own})
        hidden = Watched({k: v for k, v in network.module.named_buffers() if k not in values})
        given, kept = Watched({"x": x}), Watched({k: values[k] for k in own if k in values})
        found.buffers |= set(own)
        outputs: Any = network(values, x)
        found.copies |= bool(given.written)
        found.parameters |= parameters.written
        found.buffers -= set(own) - kept.written
        found.hidden |= hidden.written
        return outputs

    return call


def call(function: Callable[[Any, Any], Tensor], outputs: Any, data: Tensors, copies: bool) -> Tensor:
    """``function(outputs, data)`` of a loss or metric, on copies if ``copies``; else see ``check_unwritten``.

    Dicts and lists are always copies, so that ``batch["y"] = ...`` in one function does not change the next one's.
    """
    if copies:
        return function(*copied((outputs, dict(data))))
    before, own = versions(data), version(outputs) if isinstance(outputs, Tensor) else 0
    values = function(outputs if isinstance(outputs, Tensor) else mapped(lambda x: x, outputs), dict(data))
    check_unwritten(data, before)
    if isinstance(outputs, Tensor) and version(outputs) != own:
        check_unwritten({"outputs": outputs}, [own])
    return values


def versions(tensors: Tensors) -> list[int]:
    """The version of each tensor, for ``check_unwritten``."""
    if not HAS_VERSION:
        return [0] * len(tensors)
    if is_transformed():
        return [innermost(x)._version for x in tensors.values()]
    return [x._version for x in tensors.values()]  # in every step


def check_unwritten(tensors: Tensors, before: list[int]) -> None:
    """Raise RuntimeError where tensors were written into since they had the versions ``before``."""
    if versions(tensors) == before:  # this runs in every step
        return
    for (name, x), old in zip(tensors.items(), before, strict=True):
        if version(x) != old:
            raise RuntimeError(
                f"the network, the loss or a metric wrote into {name} of a batch, but not when two samples were tried "
                "before the start; others read these numbers too: write y = x - a instead of x -= a or x.sub_(a)"
            )
