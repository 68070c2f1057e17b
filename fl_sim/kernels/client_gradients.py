"""The gradients of many clients' losses at once, on a CPU: autograd around ``vmap``, inside of the ``vmap`` that runs the rule. No paper.

``vmap`` over ``torch.func.grad`` keeps the graph of the backward pass too and forms every gradient. Here one backward pass
serves all clients, and the gradient of a linear layer's weight stays a ``Product``.

Legend: C clients, B batch, I inputs, O outputs.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim.kernels import leave_vmap
from fl_sim.kernels.low_rank import Product
from fl_sim.tree import Tree

Value = Callable[..., Tensor]
"""``(params, *others) -> loss ()`` of one client, a pure function of trees."""
Grads = tuple[Tensor | None, ...]
"""None: not used."""


class _Use(NamedTuple):
    """One pass through a linear layer, stacked."""

    weight: Tensor
    """(C, O, I)."""
    x: Tensor
    """(C, ..., I)."""
    y: Tensor
    """(C, ..., O), before the bias."""
    version: int
    """Of ``x``: writes into it so far."""


class _Uses(threading.local):
    """Where passes are noted while a gradient is taken."""

    def __init__(self) -> None:
        self.now: list[_Use] | None = None


_uses = _Uses()


class Linear(nn.Linear):
    """An ``nn.Linear`` of which ``gradient`` notes inputs and outputs: ``layer.__class__ = Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        noted = _uses.now
        if noted is None:
            return F.linear(x, self.weight, self.bias)
        weight = leave_vmap.to_stacked(self.weight)
        shared = weight.stride(0) == 0  # the first step of all clients: one matrix product
        y = leave_vmap.to_stacked_with_grad(F.linear(x, weight[0].detach() if shared else self.weight.detach()))
        rows = leave_vmap.to_stacked(x).detach()
        noted.append(_Use(weight, rows, y, rows._version))
        out, bias = leave_vmap.to_single(y), cast(Tensor | None, self.bias)
        return out.clone() if bias is None else out + bias  # never y itself: who comes next may write into it


def gradient(value: Value, params: Tree, *others: Tree) -> tuple[Tree, Tensor]:
    """(gradient in ``params``, loss ()) of one client, where ``physical.possible``. Nothing of it carries a graph.

    Raises RuntimeError where the network writes into something that all clients share, or into what a linear layer still needs.
    """
    names = [list(tree) for tree in (params, *others)]
    products: list[str] = []

    def one(*flat: Tensor) -> Tensor:  # dicts cost vmap as much as a step
        given = iter(flat)
        return value(*({k: next(given) for k in tree} for tree in names))

    def all_at_once(*flat: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in flat[: len(params)]]
        with torch.enable_grad():
            losses, uses = _noted(one, *leaves, *flat[len(params) :])
        found: Grads = torch.autograd.grad(losses.sum(), [*leaves, *(use.y for use in uses)], allow_unused=True)
        sides = _sides(uses, found[len(leaves) :])
        results = [losses.detach()]
        for name, leaf, plain in zip(params, leaves, found, strict=False):
            pair: tuple[Tensor, ...] = sides.get(leaf.data_ptr(), ())
            if pair and plain is None:
                products.append(name)
                results += pair
            else:
                whole = torch.zeros_like(leaf) if plain is None else plain
                results.append(whole + pair[0] @ pair[1] if pair else whole)  # a weight that something else uses too
        return tuple(results)

    results = iter(leave_vmap.call_outside_vmap(all_at_once, *params.values(), *(x for tree in others for x in tree.values())))
    loss = next(results)
    return {
        k: Product(next(results), next(results), under_vmap=True) if k in products else next(results) for k in params
    }, loss


def _noted(one: Callable[..., Tensor], *stacked: Tensor) -> tuple[Tensor, list[_Use]]:
    """(losses (C,), passes through linear layers)."""
    uses: list[_Use] = []
    _uses.now = uses
    try:
        return torch.func.vmap(one, randomness="error")(*stacked), uses
    except RuntimeError as error:
        if "broadcast shape" in str(error):  # all that vmap says
            raise RuntimeError(
                f"an in-place operation writes a client's numbers into a tensor that all clients share: {error}"
            ) from error
        raise
    finally:
        _uses.now = None


def _sides(uses: list[_Use], outer: Grads) -> dict[int, tuple[Tensor, Tensor]]:
    """By weight, the two sides of its gradient (C, O, rows), (C, rows, I); rows of several passes one after another."""
    sides: dict[int, tuple[Tensor, Tensor]] = {}
    for use, dy in zip(uses, outer, strict=True):
        if use.x._version != use.version:
            raise RuntimeError(
                "the input of a linear layer was written into (x += ...) before its gradient was taken; write x = x + ..."
            )
        if dy is not None:
            clients, wide, narrow = use.weight.shape
            left, right = dy.reshape(clients, -1, wide).mT, use.x.reshape(clients, -1, narrow)
            if before := sides.get(use.weight.data_ptr()):
                left, right = torch.cat((before[0], left), 2), torch.cat((before[1], right), 1)
            sides[use.weight.data_ptr()] = left, right
    return sides
