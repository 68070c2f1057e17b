"""Lets code that runs under ``vmap`` for one client call a function on the stacked tensors of all clients.

A ``torch.autograd.Function`` with a ``vmap`` rule does the same with public names, but takes 200 us a call instead of
15, a third of a training step of a small model. PyTorch's own implementation of it uses the private names below. Where
a version of PyTorch lacks one of them, ``is_possible`` returns False, and callers use plain ``vmap``.

Legend: C clients.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

try:
    from torch._C._functorch import (
        TransformType,
        _add_batch_dim,
        _unwrap_batched,
        _vmap_decrement_nesting,
        _vmap_increment_nesting,
        get_interpreter_stack,
    )
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True

try:
    from torch._C._functorch import is_functorch_wrapped_tensor
except ImportError:
    HAS_WRAPPED_CHECK = False
else:
    HAS_WRAPPED_CHECK = True

try:
    from torch._C._functorch import get_unwrapped
except ImportError:
    HAS_UNWRAPPED = False
else:
    HAS_UNWRAPPED = HAS_WRAPPED_CHECK


def is_possible() -> bool:
    """Whether the current code runs under exactly one ``vmap`` and no other transform, as the functions below need."""
    stack = (get_interpreter_stack() or []) if AVAILABLE else []
    return len(stack) == 1 and stack[0].key() == TransformType.Vmap


def is_transformed() -> bool:
    """Whether the current code runs under a transform of ``torch.func``; where PyTorch cannot tell, True."""
    return bool(get_interpreter_stack()) if AVAILABLE else True


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor is the argument of a function under a transform of ``torch.func`` (vmap, grad)."""
    if HAS_WRAPPED_CHECK:
        return is_functorch_wrapped_tensor(x)
    try:
        x.data_ptr()
    except RuntimeError:  # a wrapped tensor has no storage of its own
        return True
    return False


def innermost(x: Tensor) -> Tensor:
    """The tensor behind those that transforms of ``torch.func`` wrap: it alone counts in-place writes."""
    while HAS_UNWRAPPED and is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return x


def to_stacked(x: Tensor) -> Tensor:
    """The tensor (C, ...) of all clients behind one client's ``x`` (...).

    A tensor that clients share is expanded, not copied.
    """
    return _stacked(x, retrieve_current_functorch_interpreter())


def _stacked(x: Tensor, vmap: Any) -> Tensor:
    value, dim = _unwrap_batched(x, vmap.level())
    if dim is None:
        return value.expand(vmap.batch_size(), *value.shape)
    return value.movedim(dim, 0) if dim else value  # autograd would record even a view that changes nothing


def to_stacked_with_grad(x: Tensor) -> Tensor:
    """``to_stacked``; the result requires a gradient even where no tensor that it was computed from does."""
    value = to_stacked(x)
    with retrieve_current_functorch_interpreter().lower():
        return value if value.requires_grad else value.requires_grad_()


def outside_vmap() -> AbstractContextManager[Any]:
    """While open, code runs outside of ``vmap``, on stacked tensors."""
    return retrieve_current_functorch_interpreter().lower()


def to_single(x: Tensor) -> Tensor:
    """The inverse of ``to_stacked``: one client's view (...) of ``x`` (C, ...)."""
    return _add_batch_dim(x, 0, retrieve_current_functorch_interpreter().level())


def of_each_client(function: Callable[..., Tensor], *stacked: Tensor) -> Tensor:
    """``torch.func.vmap(function)`` of stacked tensors (C, ...), without its care of nested arguments.

    That takes five times as long as the rest of a call. It is called outside of ``vmap``, in a function that
    ``call_outside_vmap`` calls.
    """
    level = _vmap_increment_nesting(len(stacked[0]), "error")
    try:
        result = function(*(_add_batch_dim(x, 0, level) for x in stacked))
        return _stacked(result, retrieve_current_functorch_interpreter())
    finally:
        _vmap_decrement_nesting()


def call_outside_vmap(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Call ``function`` on the stacked tensors of all clients, outside of ``vmap``.

    Parameters
    ----------
    function : Callable
        Stacked tensors (C, ...) -> a tuple of stacked tensors (C, ...).
    *tensors : Tensor
        One client's arguments (...), as seen under ``vmap``.

    Returns
    -------
    tuple[Tensor, ...]
        One client's view (...) of each result.
    """
    vmap = retrieve_current_functorch_interpreter()
    values = [_stacked(x, vmap) for x in tensors]
    with vmap.lower():
        results = function(*values)
    return tuple(_add_batch_dim(x, 0, vmap.level()) for x in results)
