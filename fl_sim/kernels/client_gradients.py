"""The gradients of many clients' losses at once, on a CPU: autograd is called once, outside of ``vmap``.

``vmap`` over ``torch.func.grad`` also keeps the graph of the backward pass, and computes every gradient. Here one
backward pass serves all clients, and the gradient of a linear layer's weight stays a ``Product``.

Legend: C clients, B batch, I inputs, O outputs.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim.kernels import leave_vmap
from fl_sim.kernels.low_rank import product
from fl_sim.tree import Tree

LossFunction = Callable[..., Tensor]
"""``(params, *others) -> loss ()`` of one client, a pure function of trees."""
Grads = tuple[Tensor | None, ...]
"""One gradient for each tensor; None where the loss does not depend on the tensor."""
HAS_VERSION = hasattr(torch.empty(0), "_version")
"""Whether tensors count in-place writes, which reveals a changed input; else inputs of linear layers are copied."""


class _LayerCall(NamedTuple):
    """One call of a linear layer, with stacked tensors."""

    weight: Tensor
    """(C, O, I)."""
    x: Tensor
    """(C, ..., I)."""
    y: Tensor
    """(C, ..., O), before the bias is added."""
    version: int
    """Number of writes into ``x`` at the time of the call."""


class _Recorded(threading.local):
    """Where layers record their calls while a gradient is computed."""

    def __init__(self) -> None:
        self.calls: list[_LayerCall] | None = None


_recorded = _Recorded()


class Linear(nn.Linear):
    """The same function as ``nn.Linear``; ``gradient`` records its inputs and outputs.

    ``layer.__class__ = Linear`` converts an existing layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        calls = _recorded.calls
        if calls is None:
            return F.linear(x, self.weight, self.bias)
        weight = leave_vmap.to_stacked(self.weight)
        shared = weight.stride(0) == 0  # the first step of all clients: one matrix product
        rows = leave_vmap.to_stacked(x)
        if not shared and rows.ndim == 3 and rows.is_contiguous() and not rows.requires_grad:
            with leave_vmap.outside_vmap():  # what vmap makes of F.linear here, in a third of the time
                y = torch.bmm(rows, weight.detach().mT).requires_grad_()
        else:
            y = leave_vmap.to_stacked_with_grad(F.linear(x, weight[0].detach() if shared else self.weight.detach()))
        rows = rows.detach()
        calls.append(
            _LayerCall(weight, rows, y, rows._version) if HAS_VERSION else _LayerCall(weight, rows.clone(), y, 0)
        )
        out, bias = leave_vmap.to_single(y), cast(Tensor | None, self.bias)
        return out.clone() if bias is None else out + bias  # never y itself: the next layer may write into its input


def gradient(loss: LossFunction, params: Tree, *others: Tree) -> tuple[Tree, Tensor]:
    """The gradient of one client's loss; call it where ``leave_vmap.is_possible()``.

    Parameters
    ----------
    loss : LossFunction
        Called as ``loss(params, *others)``.
    params : Tree
        The tensors to differentiate by.
    *others : Tree
        Further arguments: buffers, samples, random keys.

    Returns
    -------
    tuple[Tree, Tensor]
        (gradient by name, loss ()), without a graph. Gradients of linear layers' weights may be ``Product``s.

    Raises
    ------
    RuntimeError
        Where the network writes in place into a tensor that all clients share, or into the input of a linear layer.
    """
    names = [list(tree) for tree in (params, *others)]
    as_product: list[str] = []

    # The arguments are tensors, not dicts: vmap would flatten the dicts, which takes as long as a training step.
    def one_client(*tensors: Tensor) -> Tensor:
        remaining = iter(tensors)
        return loss(*({k: next(remaining) for k in tree} for tree in names))

    def all_clients(*tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in tensors[: len(params)]]
        with torch.enable_grad():
            losses, calls = _run_and_record(one_client, *leaves, *tensors[len(params) :])
        grads: Grads = torch.autograd.grad(losses.sum(), [*leaves, *(call.y for call in calls)], allow_unused=True)
        factors = _factors(calls, grads[len(leaves) :])
        results = [losses.detach()]
        for name, leaf, plain in zip(params, leaves, grads, strict=False):
            pair: tuple[Tensor, ...] = factors.get(leaf.data_ptr(), ())
            if pair and plain is None:
                as_product.append(name)
                results += pair
            else:  # not the weight of a linear layer, or one that is used elsewhere too
                whole = torch.zeros_like(leaf) if plain is None else plain
                results.append(whole + pair[0] @ pair[1] if pair else whole)
        return tuple(results)

    inputs = (*params.values(), *(x for tree in others for x in tree.values()))
    results = iter(leave_vmap.call_outside_vmap(all_clients, *inputs))
    value = next(results)
    return {
        k: product(next(results), next(results), under_vmap=True) if k in as_product else next(results) for k in params
    }, value


def _run_and_record(function: Callable[..., Tensor], *stacked: Tensor) -> tuple[Tensor, list[_LayerCall]]:
    """(losses (C,), calls of linear layers)."""
    calls: list[_LayerCall] = []
    _recorded.calls = calls
    try:
        return leave_vmap.of_each_client(function, *stacked), calls
    except RuntimeError as error:
        if "broadcast shape" in str(error):  # vmap's message does not name the cause
            raise RuntimeError(
                f"an in-place operation writes a client's numbers into a tensor that all clients share: {error}"
            ) from error
        raise
    finally:
        _recorded.calls = None


def _factors(calls: list[_LayerCall], outer: Grads) -> dict[int, tuple[Tensor, Tensor]]:
    """Address of a weight -> the two factors (C, O, rows), (C, rows, I) of its gradient.

    The rows of several calls of one layer are concatenated.
    """
    factors: dict[int, tuple[Tensor, Tensor]] = {}
    for call, dy in zip(calls, outer, strict=True):
        if HAS_VERSION and call.x._version != call.version:
            raise RuntimeError(
                "the input of a linear layer was written into (x += ...) before its gradient was taken; "
                "write x = x + ..."
            )
        if dy is not None:
            clients, wide, narrow = call.weight.shape
            left, right = dy.reshape(clients, -1, wide).mT, call.x.reshape(clients, -1, narrow)
            if before := factors.get(call.weight.data_ptr()):
                left, right = torch.cat((before[0], left), 2), torch.cat((before[1], right), 1)
            factors[call.weight.data_ptr()] = left, right
    return factors
