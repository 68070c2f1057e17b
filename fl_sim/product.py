"""The gradient of a linear layer's weight, left as the product that it is. No paper.

The gradient is (gradients of outputs)^T inputs, of rank B. Plain SGD adds it to the weight in one pass (``addmm``), without
ever writing it down; whoever else looks at it sees an ordinary tensor.

Legend: B batch (all leading axes), I inputs, O outputs; C clients that have weights of their own (under ``vmap``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Product(Tensor):
    """``left @ right``, formed when an operation first needs it. ``under_vmap``: whether both are one client's of many."""

    left: Tensor
    right: Tensor
    under_vmap: bool
    _formed: Tensor | None

    @staticmethod
    def __new__(cls, left: Tensor, right: Tensor, under_vmap: bool = False) -> "Product":
        shape = (*left.shape[:-1], right.shape[-1])
        made: Product = Tensor._make_wrapper_subclass(cls, shape, dtype=left.dtype, device=left.device)
        return made

    def __init__(self, left: Tensor, right: Tensor, under_vmap: bool = False) -> None:
        self.left, self.right, self.under_vmap, self._formed = left, right, under_vmap, None

    def formed(self) -> Tensor:
        """The tensor itself."""
        if self._formed is None:
            self._formed = self.left @ self.right
        return self._formed

    def added_to(self, a: Tensor, factor: float | Tensor, in_place: bool = False) -> Tensor:
        """``a + factor * self`` in one pass over ``a``; ``in_place`` writes into it."""
        left, alpha = (self.left * factor, 1.0) if isinstance(factor, Tensor) else (self.left, factor)
        if self.under_vmap:
            done: Tensor = _Plus.apply(a, left, self.right, alpha, in_place)
            return done
        return a.addmm_(left, self.right, alpha=alpha) if in_place else torch.addmm(a, left, self.right, alpha=alpha)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(formed, (args, kwargs or {}))
        return func(*args, **kwargs)

    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]  # autograd's own sums: a weight used twice


def formed(x: Any) -> Any:
    """``x``, or the tensor that it is the product for."""
    return x.formed() if isinstance(x, Product) else x


class _Plus(torch.autograd.Function):
    """``a + alpha * left @ right`` under ``vmap``, whose own rule for ``addmm`` forms the product first."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        raise NotImplementedError("only under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing of it is differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        a, left, right, alpha, in_place = args
        a, left, right = (stacked(x, d, info.batch_size) for x, d in zip((a, left, right), in_dims, strict=False))
        return (a.baddbmm_(left, right, alpha=alpha) if in_place else torch.baddbmm(a, left, right, alpha=alpha)), 0


def stacked(x: Tensor, dim: int | None, clients: int) -> Tensor:
    """(C, ...): the clients' axis first; what all clients share is repeated without being copied."""
    if dim is None:
        return x.expand(clients, *x.shape)
    return x.movedim(dim, 0) if dim else x  # as it is: autograd would see even a view of no change


def suits(layer: nn.Linear) -> bool:
    """Whether one client's weight is large enough for a pass over it to count."""
    return layer.weight.numel() >= 1 << 17


class Linear(nn.Linear):
    """An ``nn.Linear`` whose weight's gradient is a ``Product``: ``layer.__class__ = Linear``. First derivatives only."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        done: Tensor = _Linear.apply(x, self.weight, self.bias)
        return done


class _Linear(torch.autograd.Function):
    """One client: x (..., I), weight (O, I), bias (O,); or many: each with C in front. The first step's weights are all the same one."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        if weight.stride(0) == 0:
            wide = F.linear(x, weight[0])
        else:
            wide = (x.reshape(len(x), -1, x.shape[-1]) @ weight.mT).reshape(*x.shape[:-1], -1)
        return wide if bias is None else wide.add_(bias.view(len(bias), *[1] * (x.ndim - 2), -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        many = weight.shape[:-2]  # (C,) or ()
        rows = outer[0].reshape(*many, -1, weight.shape[-2])
        dx = (rows @ weight).view_as(x) if ctx.needs_input_grad[0] else None
        dw = Product(rows.mT, x.detach().reshape(*many, -1, x.shape[-1])) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(-2) if ctx.needs_input_grad[2] else None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        x, weight, bias = (x if x is None else stacked(x, d, info.batch_size) for x, d in zip(args, in_dims, strict=True))
        done: Tensor = _Linear.apply(x, weight, bias)
        return done, 0
