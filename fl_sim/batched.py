"""The gradients of many clients' losses at once, on a CPU: autograd around ``vmap``, inside of the ``vmap`` that runs the rule. No paper.

``vmap`` over ``torch.func.grad`` keeps the graph of the backward pass too and forms every gradient; here one backward pass
gives those of all clients, and a linear layer's stays a ``Product``.

Legend: C clients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fl_sim.product import Product, stacked
from fl_sim.tree import Tree

Value = Callable[..., tuple[Tensor, Tree]]
"""``(params, *others) -> (loss (), further results)`` of one client, a pure function of trees."""


def gradient(value: Value, params: Tree, *others: Tree) -> tuple[Tree, Tensor, Tree]:
    """(gradient in ``params``, loss (), further results) of one client, to be called under ``torch.func.vmap``. Nothing carries a graph."""
    call = _Call(value, [list(tree) for tree in (params, *others)])
    outputs = iter(_Gradient.apply(call, *params.values(), *(x for tree in others for x in tree.values())))
    loss, further = next(outputs), {k: next(outputs) for k in call.further}
    grads = {k: Product(next(outputs), next(outputs), True) if k in call.products else next(outputs) for k in params}
    return grads, loss, further


@dataclass
class _Call:
    """How flat lists of tensors are to be read: those that go in, then those that come out."""

    value: Value
    names: list[list[str]]
    further: list[str] = field(default_factory=list)
    products: set[str] = field(default_factory=set)

    def flat(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """``value`` on and to flat lists: taking dicts apart costs ``vmap`` as much as a step."""
        given = iter(tensors)
        loss, further = self.value(*({k: next(given) for k in names} for names in self.names))
        self.further = list(further)
        return loss, *further.values()


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> Any:
        raise NotImplementedError("only under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing of it is differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], call: _Call, *tensors: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        names = call.names[0]
        count = len(names)
        leaves = [stacked(x, d, info.batch_size).detach().requires_grad_() for x, d in zip(tensors[:count], in_dims[1:], strict=False)]
        dims = (*(0 for _ in leaves), *in_dims[1 + count :])
        with torch.enable_grad():
            loss, *further = torch.func.vmap(call.flat, dims, randomness="error")(*leaves, *tensors[count:])
            grads = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        call.products = {k for k, g in zip(names, grads, strict=True) if isinstance(g, Product)}
        sides = (x for g in grads for x in ((g.left, g.right) if isinstance(g, Product) else (g,)))
        outputs = (loss.detach(), *(x.detach() for x in further), *sides)
        return outputs, (0,) * len(outputs)
