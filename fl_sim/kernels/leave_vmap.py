"""Out of ``vmap`` for a moment, and back: a function of the stacked tensors, called by code that is written for one client. No paper.

``torch.autograd.Function`` with a ``vmap`` rule does the same in public names, at 200 us a call against 15: a third of a small
model's step. What PyTorch's own rule uses has no public name; where a version of it lacks these, ``is_possible`` says no, and
whoever asks goes the ordinary way.

Legend: C clients.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

try:
    from torch._C._functorch import TransformType, _add_batch_dim, _unwrap_batched, get_interpreter_stack
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
except ImportError:  # pragma: no cover
    AVAILABLE = False
else:
    AVAILABLE = True


def is_possible() -> bool:
    """Whether we are under exactly one ``vmap`` and under no other transform."""
    stack = (get_interpreter_stack() or []) if AVAILABLE else []
    return len(stack) == 1 and stack[0].key() == TransformType.Vmap


def to_stacked(x: Tensor) -> Tensor:
    """(C, ...) of ``x`` (...) as one client sees it; what all clients share is repeated without being copied."""
    return _stacked(x, retrieve_current_functorch_interpreter())


def _stacked(x: Tensor, vmap: Any) -> Tensor:
    value, dim = _unwrap_batched(x, vmap.level())
    if dim is None:
        return value.expand(vmap.batch_size(), *value.shape)
    return value.movedim(dim, 0) if dim else value  # autograd would see even a view of no change


def to_stacked_with_grad(x: Tensor) -> Tensor:
    """``to_stacked``, with a gradient of its own even where nothing before it has one."""
    value = to_stacked(x)
    with retrieve_current_functorch_interpreter().lower():
        return value if value.requires_grad else value.requires_grad_()


def to_single(x: Tensor) -> Tensor:
    """The inverse: one client's part (...) of ``x`` (C, ...)."""
    return _add_batch_dim(x, 0, retrieve_current_functorch_interpreter().level())


def call_outside_vmap(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """``function`` of stacked tensors, on one client's: called without ``vmap``."""
    vmap = retrieve_current_functorch_interpreter()
    values = [_stacked(x, vmap) for x in tensors]
    with vmap.lower():
        results = function(*values)
    return tuple(_add_batch_dim(x, 0, vmap.level()) for x in results)
