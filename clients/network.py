"""The network of a run: made or copied, checked on two samples, with the engine that takes it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from clients.learner import make_module, probe
from fl_sim import Task
from fl_sim.engines.choose import Choice, choose
from fl_sim.errors import ConfigError
from fl_sim.kernels.module_copies import has_backward_hook
from fl_sim.kernels.precision import Precision
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks.gradient_check import gradient_problem, vmap_problem
from fl_sim.learning.networks.index_check import index_problem
from fl_sim.learning.networks.module_checks import attributes, calls_of, changed, notes


class Network(NamedTuple):
    """A network that has been checked."""

    loss: Loss
    engine: Choice
    notes: tuple[str, ...]
    """What the run does with the network that its user may not expect, one sentence each."""


def network(
    model: object,
    params: Mapping[str, object],
    task: Task,
    seed: int,
    name: str,
    engine: str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    precision: Precision = "full",
) -> Network:
    """The network of a run, bound to its task. Of a user's own the gradient is compared with that of the module itself.

    The first five parameters are those of ``make_module``, the others those of ``choose`` and of ``Loss``. Raises
    ConfigError that names the model where it cannot be trained, does not fit the task, or has another gradient, and one
    that names the sample which holds an index outside of an embedding, or of the outputs.
    """
    module = make_module(model, params, task, seed, name)
    loss = Loss(module, task, dtype, device, precision)
    before, passed = attributes(loss.training), isinstance(model, nn.Module)
    with calls_of(model if isinstance(model, nn.Module) else module) as called:
        if why := index_problem(loss):
            raise ConfigError(f"task.name = {task.name!r}: {why}")
        found = probe(loss, name, task.name)
    if called:
        what = f"its forward calls {', '.join(sorted(called))} of the original, not of the copy that trains"
        raise ConfigError(f"model.name = {name!r}: {what}; call self.NAME in a method, not in a lambda")
    told = [*notes(module, dtype, passed), changed(before, attributes(loss.training))]
    chosen = choose(engine, module, device, found.unpaddable, loss.writes.buffers)
    if chosen.by_convolutions and has_backward_hook(module):
        chosen = Choice("loop")
    if ":" in name and precision == "full" and found.repeats:  # else two gradients of one network differ
        if why := gradient_problem(loss):
            cause = "the forward must use the module's parameters, and not run again in the backward pass (checkpoint)"
            raise ConfigError(f"model.name = {name!r}: {why} of the module's own: {cause}")
        if chosen.name == "vmap":
            why = "a hook on its backward pass" if has_backward_hook(module) else vmap_problem(loss)
            chosen = Choice("loop", f"vmap cannot take this model ({why}); it runs on the loop") if why else chosen
    chosen = replace(chosen, reason="; ".join(filter(None, (chosen.reason, found.warning))))
    return Network(loss, chosen, tuple(note for note in told if note))
