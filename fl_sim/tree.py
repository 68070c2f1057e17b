"""Algebra on whole models, so that an update reads like its formula.

A tree is a flat ``dict[str, Tensor]``: a model's parameters and persistent buffers by name, a gradient, or an
optimiser's momentum. Floating-point leaves take part in the algebra. Integer leaves (such as BatchNorm's counters)
keep their dtype; an operation that has no meaning for them returns the value of its first operand.

Legend: C clients (a leading axis of a stacked tree), D parameters.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Tree = dict[str, Tensor]


def leafwise(f: Callable[..., Tensor], first: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> Tree:
    """Apply ``f`` to the floating-point leaves of trees with the keys of ``first``; keep its other leaves."""
    return {k: f(x, *(o[k] for o in others)) if x.is_floating_point() else x for k, x in first.items()}


def add(a: Mapping[str, Tensor], b: Mapping[str, Tensor], scale: float | Tensor = 1.0) -> Tree:
    """``a + scale * b``; leaves that ``b`` lacks (buffers) come from ``a``, and all leaves where ``scale`` is 0."""
    if not isinstance(scale, Tensor) and scale == 0:
        return dict(a)
    return {k: torch.add(x, b[k] * scale) if k in b and x.is_floating_point() else x for k, x in a.items()}


def sub(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tree:
    """``a - b``."""
    return leafwise(torch.sub, a, b)


def scale(a: Mapping[str, Tensor], factor: float | Tensor) -> Tree:
    """``factor * a``."""
    return leafwise(lambda x: x * factor, a)


def lerp(a: Mapping[str, Tensor], b: Mapping[str, Tensor], weight: float) -> Tree:
    """``a + weight * (b - a)``; exactly ``b`` at weight 1.

    Integer leaves come from ``b``; leaves that ``b`` lacks come from ``a``.
    """
    return {
        k: (torch.lerp(x, b[k], weight) if x.is_floating_point() and weight != 1 else b[k]) if k in b else x
        for k, x in a.items()
    }


def where(condition: Tensor, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tree:
    """``a`` where the scalar bool ``condition`` is true, else ``b``: used so that a padded step has no effect."""
    return {k: torch.where(condition, x, b[k]) for k, x in a.items()}


def clone(a: Mapping[str, Tensor]) -> Tree:
    """A copy that shares no memory and no graph with ``a``."""
    return {k: x.detach().clone() for k, x in a.items()}


def zeros(a: Mapping[str, Tensor]) -> Tree:
    """Zeros of the same shapes and dtypes."""
    return {k: torch.zeros_like(x) for k, x in a.items()}


def or_zeros(a: Mapping[str, Tensor | None], like: Mapping[str, Tensor]) -> Tree:
    """``a`` with zeros of the shapes and dtypes of ``like`` in the place of None, autograd's of no gradient."""
    return {k: torch.zeros_like(like[k]) if x is None else x for k, x in a.items()}


def to(a: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device | str = "cpu", copy: bool = False) -> Tree:
    """Floating-point leaves in ``dtype``, all leaves on ``device``; with ``copy`` no leaf shares memory with ``a``."""
    return {k: x.to(device, dtype if x.is_floating_point() else x.dtype, copy=copy) for k, x in a.items()}


def norm(a: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm over all floating-point leaves, a 0-dim tensor."""
    norms = [torch.linalg.vector_norm(x) for x in a.values() if x.is_floating_point()]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def finite(a: Mapping[str, Tensor]) -> Tensor:
    """Whether every floating-point leaf is finite, a 0-dim bool tensor."""
    checks = [torch.isfinite(x).all() for x in a.values() if x.is_floating_point()]
    return torch.stack(checks).all() if checks else torch.ones((), dtype=torch.bool)


def stack(trees: Iterable[Mapping[str, Tensor]]) -> Tree:
    """Stack trees with equal keys into one tree with a leading axis C."""
    listed = list(trees)
    return {k: torch.stack([t[k] for t in listed]) for k in listed[0]}


def take(stacked: Mapping[str, Tensor], index: int | slice | Tensor) -> Tree:
    """The tree(s) at ``index`` of the leading axis C."""
    return {k: x[index] for k, x in stacked.items()}


def num_bytes(a: Mapping[str, Tensor]) -> int:
    """Size of all leaves, in bytes."""
    return sum(x.numel() * x.element_size() for x in a.values())


def digest(a: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of the leaves, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(a):
        x = a[name].detach().cpu().contiguous()
        sha.update(f"{name}:{x.dtype}:{tuple(x.shape)};".encode())
        sha.update(x.reshape(-1).view(torch.uint8).numpy().data)  # as bytes, because NumPy has no bfloat16
    return sha.hexdigest()
