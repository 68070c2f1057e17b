"""Whether a network's gradient, as it is computed here, is that of the module itself.

Training substitutes tensors into a copy of the user's module. A module that holds its weights elsewhere as well, or
runs its forward again in the backward pass (``torch.utils.checkpoint``), would use the wrong ones without an error.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fl_sim import rng, tree
from fl_sim.kernels.module_copies import copy_of
from fl_sim.learning.batch import Batch
from fl_sim.learning.loss import Loss
from fl_sim.tree import Tree

TOLERANCE = 1e-2
"""Largest relative difference of a gradient's norm that passes for rounding."""


def gradient_problem(loss: Loss) -> str:
    """How the loop's gradient differs from the module's own, for two samples.

    Empty where it does not, or where two samples have no gradient (it raises), which the run reports if need be.
    """
    return _confirmed(_from_module, loss)


def vmap_problem(loss: Loss) -> str:
    """How the gradient under ``vmap`` differs from the loop's; empty where it does not, or where vmap raises."""
    return _confirmed(_from_loop, loss)


def runs_on_vmap(loss: Loss) -> bool:
    """Whether ``vmap`` can take the gradient at all: not where the network reads a number, as ``if`` does."""
    try:
        _under_vmap(loss, *_sample(loss))
    except Exception:
        return False
    return True


def _confirmed(problem: Callable[[Loss], str], loss: Loss) -> str:
    """The problem of ``loss``, where float64 has one too: BatchNorm of two samples can magnify rounding to 10 %."""
    found = problem(loss)
    if not found or loss.dtype == torch.float64:
        return found
    try:
        return problem(Loss(loss.training, loss.task, torch.float64, loss.device, loss.precision))
    except Exception:  # a module or a device without float64
        return found


def _from_module(loss: Loss) -> str:
    batch, model = _sample(loss)
    try:
        with rng.keyed_globals(0):
            expected = _of_module(loss, model, batch)
        with rng.keyed_globals(0):
            found, _, _ = loss.gradient(model, batch)
    except Exception:  # the probe and the run report it
        return ""
    return _difference(found, expected)


def _from_loop(loss: Loss) -> str:
    batch, model = _sample(loss)
    try:
        found = _under_vmap(loss, batch, model)
    except Exception:
        return ""  # the engine reports it, and goes on with the loop
    return _difference(found, loss.gradient(model, batch)[0])


def _under_vmap(loss: Loss, batch: Batch, model: Tree) -> Tree:
    """The gradient at a model that is the second of two."""
    inner = loss.under_vmap(trial=True)  # a tensor of many clients in an attribute could not be sent to Ray's workers
    both = tree.stack([tree.scale(model, 0.5), model])
    return tree.take(torch.func.vmap(lambda own: inner.gradient(own, batch)[0])(both), 1)


def _sample(loss: Loss) -> tuple[Batch, Tree]:
    """Two samples, and a model that is not the module's own."""
    rows = {k: v[:2].to(loss.device) for k, v in loss.task.train.items()}
    model = loss.initial()
    moved = {name: model[name] * 1.3 + 0.01 for name in loss.trainable}
    return Batch(rows, rng.words(0).to(loss.device)), {**model, **moved}


def _of_module(loss: Loss, model: Tree, batch: Batch) -> Tree:
    """The gradient by autograd of a copy of the module that has loaded the model."""
    module = copy_of(loss.training)
    module.load_state_dict(loss.form.state_dict(model))

    def network(values: Mapping[str, Tensor], x: Tensor) -> object:
        for name in loss.dropouts:
            layer: Any = module.get_submodule(name)
            layer.words, layer.calls = values[f"{name}.words"], 0
        return module(x)

    loss.value_by(network, model, batch).backward()  # type: ignore[no-untyped-call]
    grads: dict[str, Tensor | None] = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    plain = {k: torch.zeros_like(module.get_parameter(k)) if g is None else g.to_dense() for k, g in grads.items()}
    return {k: torch.view_as_real(g) if g.is_complex() else g for k, g in plain.items()}


def _difference(found: Tree, expected: Tree) -> str:
    whole = float(tree.norm(expected))
    for name, g in expected.items():
        error = float(torch.linalg.vector_norm(found[name] - g))
        if not error <= TOLERANCE * max(float(torch.linalg.vector_norm(g)), 1e-3 * whole):
            return f"the gradient of {name} has the norm {float(torch.linalg.vector_norm(found[name])):.4g}" + (
                f" instead of {float(torch.linalg.vector_norm(g)):.4g}"
            )
    return ""
