"""From a model's name and a task to a module and a learner, in the same way in a simulation and on a device."""

from collections.abc import Callable, Mapping

import torch
from flwr.app import Message
from torch import nn

from clients.shares import call, making
from fl_sim import Task, rng
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.results import ClientResult
from fl_sim.engines.run_block import run_plan
from fl_sim.errors import ConfigError
from fl_sim.grids.messages import received_of
from fl_sim.kernels.module_copies import copy_of
from fl_sim.learning.loss import Loss
from fl_sim.learning.measures import MeasureFailed
from fl_sim.learning.networks.module_checks import lazy_tensors, problem, written
from fl_sim.learning.probe import Findings
from fl_sim.learning.probe import probe as seen_on_samples
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.samples.sample_cures import cure_of_inputs, cure_of_targets
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree
from fl_sim.wire.codec import Coding, no_coding


def make_module(model: object, params: Mapping[str, object], task: Task, seed: int, name: str) -> nn.Module:
    """The network for a task's shapes, with initial weights keyed by ``seed``.

    Parameters
    ----------
    model : Callable or nn.Module
        A function of ``inputs``, ``outputs`` and its own parameters (it gets those that it takes); or a module, which
        is copied, so that each run starts from the same weights. Lazy layers get their shapes from two samples, and
        their weights from the seed.
    params : Mapping
        The model's own parameters.
    seed : int
        The run's seed.
    name : str
        Name of the model in error messages.

    Raises
    ------
    ConfigError
        Where the function does not return a ``torch.nn.Module``, or one of a kind that cannot be trained, such as one
        whose parameters are all frozen: see ``fl_sim.learning.networks.module_checks.problem``.
    """
    if isinstance(model, nn.Module) and not any(lazy_tensors(model)) and (why := problem(model)):
        raise ConfigError(f"model.name = {name!r}: {why}")  # a copy loses hooks, and memory that tensors share
    with rng.keyed_globals(rng.key(seed, "init")):
        if isinstance(model, nn.Module):
            try:
                module: object = copy_of(model)
            except Exception as error:
                what = f"cannot be copied ({type(error).__name__}: {error})"
                raise ConfigError(f"model.name = {name!r}: {what}; pass a function that makes it") from error
        else:
            with making("model.name", name):
                shapes = {"inputs": task.inputs, "outputs": task.outputs}
                module = call(model, {**shapes, **params}) if callable(model) else model
        if not isinstance(module, nn.Module):
            made = type(module).__name__
            raise ConfigError(f"model.name = {name!r}: makes a {made}; it must make a torch.nn.Module")
        if any(lazy_tensors(module)):
            give_shapes(module, task, name)
    if why := problem(module):
        raise ConfigError(f"model.name = {name!r}: {why}")
    return module


def give_shapes(module: nn.Module, task: Task, name: str) -> None:
    """Run a network with lazy layers on two samples, in evaluation mode, which creates their parameters in place.

    Raises ConfigError where it cannot take the samples.
    """
    modes, dtype = [(m, m.training) for m in module.modules()], next(module.parameters()).dtype
    rows = {k: v[:2] for k, v in task.train.items()}
    rows = {k: v.to(dtype) if v.is_floating_point() or v.dtype == torch.uint8 else v for k, v in rows.items()}
    try:
        with torch.no_grad():
            module.eval()(task.transform(rows, None)["x"])
    except Exception as error:
        what = f"its lazy layers cannot take task {task.name}'s samples of shape {task.inputs}"
        raise ConfigError(f"model.name = {name!r}: {what}: {type(error).__name__}: {error}") from error
    for layer, training in modes:
        layer.training = training


def probe(loss: Loss, model: str, task: str) -> Findings:
    """What loss and metrics of a task give with a model, seen on a few samples; ``model`` and ``task`` are their names.

    Raises ConfigError where model, loss or a metric does not fit the task, as ``fl_sim.learning.probe`` does, and where
    the network changes tensors of its own that are no persistent buffers.
    """
    if what := written(loss.training, loss.writes.parameters, loss.writes.hidden):
        raise ConfigError(f"model.name = {model!r}: {what}")
    try:
        return seen_on_samples(loss)
    except ConfigError as error:
        raise ConfigError(f"task.name = {task!r}: {error}") from error
    except Exception as error:
        if isinstance(error, MeasureFailed) and not str(error).startswith("the loss"):
            raise ConfigError(f"task.name = {task!r}: {error}") from error
        what = f"cannot take task {task}'s samples of shape {loss.task.inputs}, or its loss or a metric fails on them"
        cure = cure_of_inputs(loss.task.train["x"]) or cure_of_targets(loss.task.train["y"])
        if isinstance(loss.task.loss, nn.Module):
            kind = type(loss.task.loss).__name__
            cure = f"the loss is a module, {kind}; give a function: lambda outputs, batch: module(outputs, batch['y'])"
        what = f"{cure} ({what})" if cure else what
        raise ConfigError(f"model.name = {model!r}: {what}: {type(error).__name__}: {error}") from error


def make_learner(
    loss: Loss,
    partition: Partition,
    rules: Callable[[str, Settings], LocalRule],
    coding: Callable[[Settings], Coding | None] = no_coding,
) -> Learner:
    """A learner, which is all that training needs besides a message; samples are copied to the loss's device once."""
    return Learner(loss, {k: v.to(loss.device) for k, v in loss.task.train.items()}, partition, rules, coding=coding)


def answer(
    learner: Learner, message: Message, client: int, settings: Settings, states: Mapping[int, Tree]
) -> ClientResult:
    """One client's answer to one message, computed as a block of one client on the loop engine.

    Parameters
    ----------
    client : int
        Its id in the learner's partition.
    settings : Settings
        The message's settings by dotted name.
    states : Mapping
        Client id -> its state; empty where it has none yet.
    """
    [plan] = plan_blocks(learner, message.metadata.message_type, [(0, client, settings)], states, 1)
    model = learner.loss.received(received_of(message))
    return run_plan(plan, model, learner, "loop", 1, None).clients[0]
