"""The gradient of a linear layer's weight, kept as a product of two matrices.

The gradient is (gradients of outputs)^T inputs, of rank B. Plain SGD adds it to the weight in one pass (``addmm``), and
the product itself is never written to memory. For all other operations it is an ordinary tensor.

Legend: B batch (all leading axes), I inputs, O outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim.kernels import leave_vmap

HAS_WRAPPER_SUBCLASS = hasattr(Tensor, "_make_wrapper_subclass")
"""Whether PyTorch has this private function, which its documentation uses; else ``product`` computes at once."""


class Product(Tensor):
    """``left @ right`` (O, I), computed when an operation first needs it.

    Parameters
    ----------
    left, right : Tensor
        (O, B) and (B, I).
    under_vmap : bool (default: False)
        Whether both are one client's view of stacked tensors, under ``vmap``.
    """

    left: Tensor
    right: Tensor
    under_vmap: bool
    _formed: Tensor | None

    @staticmethod
    def __new__(cls, left: Tensor, right: Tensor, under_vmap: bool = False) -> "Product":
        shape = (left.shape[0], right.shape[1])
        new: Product = Tensor._make_wrapper_subclass(cls, shape, dtype=left.dtype, device=left.device)
        return new

    def __init__(self, left: Tensor, right: Tensor, under_vmap: bool = False) -> None:
        self.left, self.right, self.under_vmap, self._formed = left, right, under_vmap, None

    def formed(self) -> Tensor:
        """The product as an ordinary tensor."""
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

        def add(a: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor]:
            return (a.baddbmm_(left, right, alpha=alpha) if in_place else torch.baddbmm(a, left, right, alpha=alpha),)

        # addmm under vmap would compute the product first
        return leave_vmap.call_outside_vmap(add, formed(a), left, self.right)[0]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return func(*_all_formed(args), **_all_formed(kwargs or {}))

    # autograd calls this one where it sums the gradients of a weight that is used twice
    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]


def product(left: Tensor, right: Tensor, under_vmap: bool = False) -> Tensor:
    """A ``Product``; where PyTorch has no ``_make_wrapper_subclass``, the product as an ordinary tensor."""
    return Product(left, right, under_vmap) if HAS_WRAPPER_SUBCLASS else left @ right


def formed(x: object) -> Any:
    """``x``, or for a ``Product`` its ordinary tensor."""
    return x.formed() if isinstance(x, Product) else x


def _all_formed(arguments: Any) -> Any:
    """Nested lists, tuples and dicts of arguments, with an ordinary tensor for each ``Product``."""
    if type(arguments) in (list, tuple):
        return type(arguments)(map(_all_formed, arguments))
    if type(arguments) is dict:
        return {k: _all_formed(v) for k, v in arguments.items()}
    return formed(arguments)


def supports(layer: nn.Linear) -> bool:
    """Whether the weight is so large that a pass over it takes noticeable time."""
    return layer.weight.numel() >= 1 << 17


class Linear(nn.Linear):
    """The same function as ``nn.Linear``; the gradient of its weight is a ``Product``.

    ``layer.__class__ = Linear`` converts an existing layer. It supports first derivatives only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        y: Tensor = _Linear.apply(x, self.weight, self.bias)
        return y


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
        dw = product(rows.T, x.detach().reshape(len(rows), -1)) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None
