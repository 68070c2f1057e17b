"""Optimisers as pure functions of trees with the arithmetic of torch.optim, so that ``vmap`` can vectorise them.

SGD with momentum: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in
the form of torch.optim. Adam: Kingma and Ba, ICLR 2015, arXiv:1412.6980, algorithm 1. AdamW: Loshchilov and Hutter,
ICLR 2019, arXiv:1711.05101, algorithm 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_sim.kernels.low_rank import Product
from fl_sim.tree import Tree

State = dict[str, Tree]
Step = Callable[[Tree, Tree, State, int, "Rates"], tuple[Tree, State]]
"""``(params, gradients, state, step, rates) -> (new params, new state)``; steps are counted from 0."""


@dataclass(frozen=True)
class Rates:
    """The numbers of an update rule; a rule ignores those that it has no use for.

    A number is a 0-dim tensor where several runs, each with its own value, are computed as one batch.
    """

    lr: float | Tensor
    momentum: float | Tensor = 0.0
    weight_decay: float | Tensor = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    in_place: bool = False
    """Whether sgd may modify ``params`` in place, which saves one pass over memory: only if no one else uses them."""


def is_active(number: float | Tensor) -> bool:
    """Whether a rate is not zero; a tensor counts as not zero, because its value must not be read under ``vmap``."""
    return isinstance(number, Tensor) or number != 0


def _plus(a: Tensor, b: Tensor, factor: float | Tensor) -> Tensor:
    """``a + factor * b``."""
    if isinstance(b, Product):
        return b.added_to(a, factor)
    return a + b * factor if isinstance(factor, Tensor) else torch.add(a, b, alpha=factor)


def _plus_(a: Tensor, b: Tensor, factor: float | Tensor) -> Tensor:
    """``a + factor * b``, computed in place in ``a``."""
    if isinstance(b, Product):
        return b.added_to(a, factor, in_place=True)
    return a.add_(b * factor) if isinstance(factor, Tensor) else a.add_(b, alpha=factor)


def sgd(params: Tree, grads: Tree, state: State, step: int, rates: Rates) -> tuple[Tree, State]:
    """``b <- momentum * b + g + weight_decay * w``; ``w <- w - lr * b``."""
    if is_active(rates.weight_decay):
        grads = {k: _plus(g, params[k], rates.weight_decay) for k, g in grads.items()}
    if is_active(rates.momentum):
        if state:
            grads = {k: _plus(g, state["momentum"][k], rates.momentum) for k, g in grads.items()}
        state = {"momentum": grads}
    plus = _plus_ if rates.in_place else _plus
    return {k: plus(p, grads[k], -rates.lr) for k, p in params.items()}, state


def adam(params: Tree, grads: Tree, state: State, step: int, rates: Rates) -> tuple[Tree, State]:
    """Adam; ``weight_decay * w`` is added to the gradient."""
    if is_active(rates.weight_decay):
        grads = {k: _plus(g, params[k], rates.weight_decay) for k, g in grads.items()}
    b1, b2 = rates.betas
    zero = {k: torch.zeros_like(g) for k, g in grads.items()}
    first = {k: torch.lerp(m, grads[k], 1 - b1) for k, m in state.get("first", zero).items()}
    second = {k: v * b2 + (1 - b2) * grads[k] * grads[k] for k, v in state.get("second", zero).items()}
    size, root = rates.lr / (1 - b1 ** (step + 1)), (1 - b2 ** (step + 1)) ** 0.5
    new = {k: p - size * first[k] / (second[k].sqrt() / root + rates.eps) for k, p in params.items()}
    return new, {"first": first, "second": second}


def adamw(params: Tree, grads: Tree, state: State, step: int, rates: Rates) -> tuple[Tree, State]:
    """Adam with decoupled weight decay: first ``w <- (1 - lr * weight_decay) * w``."""
    decayed = {k: p * (1 - rates.lr * rates.weight_decay) for k, p in params.items()}
    return adam(decayed, grads, state, step, Rates(rates.lr, betas=rates.betas, eps=rates.eps))


RULES: Mapping[str, Step] = {"sgd": sgd, "adam": adam, "adamw": adamw}


def clip(grads: Tree, largest: float, norm: Tensor) -> Tree:
    """Scale ``grads``, of Euclidean norm ``norm``, to at most the norm ``largest``, as torch's clip_grad_norm_ does."""
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    return {k: g * factor for k, g in grads.items()}
