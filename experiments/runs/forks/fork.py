"""What a forked run takes over from the checkpoint at which it begins, and what its own settings decide.

The model is always taken over. The state of the strategy is, where both runs have the same strategy with the same
numbers and the same ``server.lr``; the states of clients, where both have the same strategy with the same numbers.
Clients hold no model of the run that is forked: with ``codec.down``, the first round sends whole models.
All else, such as ``seed``, ``cohort`` or ``weighting``, is as the fork's config says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from clients.shares import LAYOUT, NEVER_TRAIN
from experiments.config.choices import BY_RUN, PACKAGES
from experiments.config.plan_checks import default_values, values
from experiments.config.schema import Config
from experiments.config.stored import lacked_by, renamed
from experiments.runs.setup import Setup
from fl_sim import Callback, Run, tree
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.grids.downwards.sent_models import KEPT as REFERENCE
from fl_sim.rounds.checkpoint import Checkpoint
from fl_sim.wire import records
from strategies.base.strategy import Strategy

OURS = ("cohort", "seed", "server_lr", "weighting")
"""Attributes of this project's strategies that are numbers of the run, and no state."""
OWNERS = ("task.", "partition.", "clients", "validation")
"""Beginnings of the settings that decide which client owns which samples."""
NO_OWNERS = [f"task.{name}" for name in LAYOUT]
"""Settings of tasks that do not: they say what the labels mean."""


def taken_over(begin: Checkpoint, config: Config) -> Checkpoint:
    """The checkpoint with the states that the fork keeps; its facts: ``restarted``, whether the strategy's begins
    anew, and ``seen``: ``trained_before``.

    Raises ConfigError for a setting that the states of clients, or of the strategy, do not allow.
    """
    was, now = settings_then(begin.facts["config"], config), settings_now(config)
    changed = {key for key in now if was[key] != now[key]}
    numbers = {k for k in changed if k.startswith("strategy.") and k.removeprefix("strategy.") not in BY_RUN}
    restarted = bool(numbers) or "server.lr" in changed
    begin = replace(begin, strategy={k: v for k, v in begin.strategy.items() if k != REFERENCE})
    kept = replace(begin, strategy={}, untrusted="") if restarted else begin
    kept = replace(kept, states={}) if numbers else kept
    if kept.states and "run" in begin.facts:
        why = "the run was a deployment, whose clients keep their states on their devices"
        raise ConfigError(f"fork = {config.fork!r}: {why}; resume it, or change a number of the strategy")
    moved = sorted(k for k in changed if k.startswith(OWNERS) and k not in NO_OWNERS)
    if kept.states and moved:
        key, then = moved[0], was[moved[0]]
        why = f"{len(kept.states)} clients have states, which belong to the samples that they had ({key} = {then!r})"
        raise ConfigError(f"{key} = {now[key]!r}: fork: {why}; leave it out, or fork another strategy")
    if "dtype" in changed:
        if kept.states or any(holds_arrays(value) for value in kept.strategy.values()):
            why = f"fork: the states of {config.strategy.name} are {was['dtype']}"
            raise ConfigError(f"dtype = {config.dtype!r}: {why}; leave it out, or change a number of the strategy")
        kept = replace(kept, model=tree.to(kept.model, getattr(torch, config.dtype)))
    return replace(kept, positions={}, facts={"restarted": restarted, "seen": trained_before(was, now, moved)})


def trained_before(was: Mapping[str, Any], now: Mapping[str, Any], moved: Sequence[str]) -> str:
    """What tells that the model has been trained on samples of clients that are to be unseen; empty where it has not.

    ``was``, ``now`` : the settings of both runs; ``moved`` : those in which they differ that decide who owns what.
    """
    then, never = (sum(int(each[key]) for key in NEVER_TRAIN) for each in (was, now))
    dealt = [key for key in moved if key not in NEVER_TRAIN]
    if not never or (never <= then and not dealt):
        return ""
    why = f"{dealt[0]} was {was[dealt[0]]!r}" if dealt else f"of these {never} clients {then} never trained in it"
    return f"clients that never train (unseen, validation) may have trained the model that the fork begins with: {why}"


def settings_now(config: Config) -> dict[str, object]:
    """All settings by dotted key, with the names of components."""
    return {**values(config), **{f"{kind}.name": getattr(config, kind).name for kind in PACKAGES}}


def settings_then(stored: Mapping[str, Any], config: Config) -> dict[str, object]:
    """The settings of the run that is forked, by the keys of ``settings_now``.

    A setting that ``stored`` lacks was None, or did not exist yet: the run had its default.
    """
    now = settings_now(config)
    before = {**now, **default_values(config), **lacked_by(stored), **flatten(renamed(dict(stored)))}
    return {key: before[key] for key in now}


def holds_arrays(value: object) -> bool:
    """Whether there are tensors or arrays in an attribute of a strategy."""
    if isinstance(value, (torch.Tensor, np.ndarray, ArrayRecord)):
        return True
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(holds_arrays(part) for part in inner)


def check_model(begin: Checkpoint, setup: Setup) -> None:
    """Raise ConfigError where the checkpoint's model has other arrays than the run's network.

    Of leaves that stay with their clients it must have the values of the network, with which a client begins.
    """
    initial, config = records.decode(setup.initial), setup.config
    shapes = [{k: tuple(v.shape) for k, v in m.items()} for m in (begin.model, initial)]
    differing = sorted(k for k in {*shapes[0], *shapes[1]} if shapes[0].get(k) != shapes[1].get(k))
    if differing:
        key, (was, now) = differing[0], (each.get(differing[0]) for each in shapes)
        what = f"the checkpoint of round {begin.round} has {key} of shape {was}, this network {now}"
        raise ConfigError(
            f"model.name = {config.model.name!r}: fork = {config.fork!r}: {what}; fork with the same model"
        )
    home = getattr(setup.strategy, "at_home", ())
    if other := [k for k in home if not torch.equal(begin.model[k].to(initial[k].dtype), initial[k])]:
        what = f"{other[0]} stays with its client, which begins with the network's own and not with the checkpoint's"
        cure = "fork a run of the same strategy and seed, or begin with a network that has the checkpoint's weights"
        raise ConfigError(f"fork = {config.fork!r}: {what}; {cure}")


class ForkNumbers(Callback):
    """Gives a strategy the run's own numbers again after a checkpoint has restored its attributes.

    Parameters
    ----------
    strategy : Strategy
        The strategy before that: its attributes have the fork's numbers.
    begin : Checkpoint
        What ``taken_over`` returned.
    """

    reads_digest = False

    def __init__(self, strategy: FlowerStrategy, begin: Checkpoint) -> None:
        self.numbers = [(path, own_numbers(inner)) for path, inner in strategies(strategy)]
        self.since = begin.round if begin.facts.get("restarted") else None

    def on_run_start(self, run: Run) -> None:
        """Set the numbers, and the round in which the strategy's state begins where that is this one."""
        found = dict(strategies(run.strategy))
        for path, numbers in self.numbers:
            vars(found[path]).update(numbers)
        if self.since is not None and counts_rounds(run.strategy):
            vars(run.strategy)["state_since"] = self.since


def strategies(strategy: FlowerStrategy, path: str = "") -> Iterator[tuple[str, FlowerStrategy]]:
    """A strategy and those in its attributes, such as the one that a wrapper wraps, by the path to them."""
    yield path, strategy
    for name, value in vars(strategy).items():
        if isinstance(value, FlowerStrategy):
            yield from strategies(value, f"{path}.{name}")


def own_numbers(strategy: FlowerStrategy) -> dict[str, Any]:
    """The attributes that the run's config decides."""
    names = OURS if isinstance(strategy, Strategy) else BY_RUN
    return {k: v for k, v in vars(strategy).items() if k in names}


def counts_rounds(strategy: FlowerStrategy) -> bool:
    """Whether a strategy's step may count the rounds since its state began, as this project's and Flower's do."""
    inside = [inner for _, inner in strategies(strategy)]
    flowers = any(
        cls.__module__.startswith("flwr.") and cls is not FlowerStrategy for one in inside for cls in type(one).__mro__
    )
    return isinstance(strategy, Strategy) or flowers
