"""Local training of one client: one optimiser step a batch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.learning import optim
from fl_sim.learning.loss import Batch
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree

Metrics = dict[str, Tensor]
Gradient = Callable[[Tree, Batch], tuple[Tree, Tensor, Tree]]
"""``(model, batch) -> (gradient, loss (), new buffers)``.

The function must not keep ``model``, because the next step may write into its tensors.
"""


def num_steps(batches: Sequence[Batch]) -> Tensor | int:
    """How many of a client's batches are steps, and not padding."""
    padded = [batch.active for batch in batches if batch.active is not None]
    return torch.stack(padded).sum() + (len(batches) - len(padded)) if padded else len(batches)


def train(model: Tree, batches: Iterable[Batch], local: Local, gradient: Gradient) -> tuple[Tree, Metrics]:
    """Local training: one optimiser step a batch along ``gradient``.

    A padded step (``batch.active`` False) changes nothing. Returns the new model and the metric ``loss``: the mean over
    all samples of all steps (where labels are ignored, over all that count); a step's loss is that of the model before
    the step.
    """
    rule = optim.RULES[local.optimizer]
    rates = optim.Rates(local.lr, local.momentum, local.weight_decay)
    in_place = replace(rates, in_place=True)
    norm = cast("float | Tensor", local.clip_norm)  # in a batch of runs a tensor, of which none is 0
    clips = isinstance(norm, Tensor) or bool(norm)
    state: optim.State = {}
    total: Tensor | float = 0.0
    count: Tensor | int = 0
    for step, batch in enumerate(batches):
        grads, loss, buffers = gradient(model, batch)
        if clips:
            grads = optim.clip(grads, local.clip_norm, tree.norm(grads))
        own = step > 0 and batch.active is None  # after the first step these tensors are this client's own
        params, new_state = rule({k: model[k] for k in grads}, grads, state, step, in_place if own else rates)
        new = {**model, **buffers, **params}
        if batch.active is not None:
            new = tree.where(batch.active, new, model)
            old_state = state or {name: tree.zeros(value) for name, value in new_state.items()}
            new_state = {name: tree.where(batch.active, value, old_state[name]) for name, value in new_state.items()}
        model, state = new, new_state
        total, count = total + loss * batch.weight, count + batch.weight
    denominator = count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
    return model, {"loss": torch.as_tensor(total / denominator)}
