"""The gradient of a linear layer's weight, left as the product that it is. No paper.

The gradient is (gradients of outputs)^T inputs, of rank B. Plain SGD adds it to the weight in one pass (``addmm``), without
ever writing it down; whoever else looks at it sees an ordinary tensor.

Legend: B batch (all leading axes), I inputs, O outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fl_sim.kernels import leave_vmap


class Product(Tensor):
    """``left @ right``, formed when an operation first needs it. ``under_vmap``: whether both are one client's of many."""

    left: Tensor
    right: Tensor
    under_vmap: bool
    _formed: Tensor | None

    @staticmethod
    def __new__(cls, left: Tensor, right: Tensor, under_vmap: bool = False) -> "Product":
        shape = (left.shape[0], right.shape[1])
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
        if not self.under_vmap:
            return (
                a.addmm_(left, self.right, alpha=alpha) if in_place else torch.addmm(a, left, self.right, alpha=alpha)
            )

        def plus(a: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor]:  # vmap's own addmm would form the product
            return (a.baddbmm_(left, right, alpha=alpha) if in_place else torch.baddbmm(a, left, right, alpha=alpha),)

        return leave_vmap.call_outside_vmap(plus, formed(a), left, self.right)[0]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(formed, (args, kwargs or {}))
        return func(*args, **kwargs)

    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]  # autograd's own sums: a weight used twice


def formed(x: Any) -> Any:
    """``x``, or the tensor that it is the product for."""
    return x.formed() if isinstance(x, Product) else x


def suits(layer: nn.Linear) -> bool:
    """Whether the weight is large enough for a pass over it to count."""
    return layer.weight.numel() >= 1 << 17


class Linear(nn.Linear):
    """An ``nn.Linear`` whose weight's gradient is a ``Product``: ``layer.__class__ = Linear``. First derivatives only."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        done: Tensor = _Linear.apply(x, self.weight, self.bias)
        return done


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = outer[0].reshape(-1, len(weight))
        dx = (rows @ weight).view_as(x) if ctx.needs_input_grad[0] else None
        dw = Product(rows.T, x.detach().reshape(len(rows), -1)) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None
