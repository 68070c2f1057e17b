"""From a config to its samples and who owns them. No paper."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from experiments.config import NATURAL, Config
from experiments.values import ConfigError
from fl_sim import Task, Transform, rng
from fl_sim.partition import Partition
from fl_sim.tree import Tree


def data(config: Config) -> tuple[Task, Tree, Partition]:
    """(the task on what its clients share out, the central validation samples, who owns what); kept for the next of several runs."""
    chosen = [getattr(config, name) for name in ("task", "partition")]
    numbers = (config.data_dir, config.validation, config.clients, config.standardize, config.augment)
    key = repr(([(c.name, c.params, id(c.thing)) for c in chosen], numbers, os.environ.get("FL_SIM_DATA")))
    if key not in _made:
        _made.clear()
        _made[key] = _data(config)
    task, held, partition = _made[key]
    if config.personalize_steps and not partition.size_counts()[:, 1].any():
        what = f"partition.held_out = {config.partition.params.get('held_out')} leaves no client a test sample of its own"
        raise ConfigError(f"personalize_steps = {config.personalize_steps}: {what}; choose fewer clients or a larger share")
    training = len(partition) - config.holdout_clients
    if training < 1 or config.cohort > training:
        counts = f"of {len(partition)} clients, holdout_clients = {config.holdout_clients} never train"
        raise ConfigError(
            f"cohort = {config.cohort}: {counts}; choose a cohort of at most {max(training, 0)}, or 0 for all, and keep one to train"
        )
    return task, held, partition


_made: dict[str, tuple[Task, Tree, Partition]] = {}


def _data(config: Config) -> tuple[Task, Tree, Partition]:
    chosen, divide = config.task, config.partition
    if config.data_dir is not None and not os.path.isdir(config.data_dir):
        raise ConfigError(f"data_dir = {config.data_dir!r}: no such folder; name one that holds {chosen.name}, or leave it out")
    supplied = {"data_dir": config.data_dir, "clients": config.clients or None}
    task: Task = (
        chosen.thing if chosen.made else call(chosen.thing, {**chosen.params, **{k: v for k, v in supplied.items() if v is not None}})
    )
    params = dict(divide.params)
    seed, held_out = params.pop("seed"), params.pop("held_out")
    kept, held = {}, round(config.validation * task.num_train)
    if held:
        order = rng.permutation(rng.key(seed, "validation"), task.num_train)
        kept = task.subset(np.sort(order[:held])).train
        task = task.subset(np.sort(order[held:]))
    task = replace(task, transform=transform(task, config.standardize, config.augment))
    natural = int(task.clients.max()) + 1 if task.clients is not None else 10
    count = config.clients or (natural if divide.name == NATURAL else 10)
    made = divide.thing if divide.made else divide.thing(task, count, seed, **params)
    return task, kept, as_partition(made, divide.name, task.num_train).hold_out(held_out, seed)


def as_partition(made: Any, name: str, samples: int) -> Partition:
    """A Partition, also from one index array a client. Raises ConfigError where some index is no training sample, or is owned twice.

    Of a partition whose clients share samples, only some clients are looked at: it may have any number of them.
    """
    if not isinstance(made, Partition):
        try:
            made = Partition.of([np.asarray(part, dtype=np.int64).reshape(-1) for part in made])
        except (TypeError, ValueError) as error:
            what = f"makes a {type(made).__name__} that cannot be read ({error})"
            raise ConfigError(f"partition.name = {name!r}: {what}; it must make a fl_sim.Partition, or one index array a client") from error
    partition: Partition = made
    kinds = partition.size_counts()
    empty = int(kinds[kinds[:, :2].sum(1) < 1, 2].sum())
    if empty or not len(partition):
        raise ConfigError(f"partition.name = {name!r}: {empty} of {len(partition)} clients own no sample; each must own one")
    owned = np.sort(np.concatenate([partition.client(c) for c in looked_at(partition)]))
    if owned[0] < 0 or owned[-1] >= samples:
        raise ConfigError(f"partition.name = {name!r}: indices must be numbers of 0..{samples - 1}")
    if partition.exclusive and (owned[1:] == owned[:-1]).any():
        raise ConfigError(f"partition.name = {name!r}: indices must be different numbers of 0..{samples - 1}, each owned by one client")
    return partition


def looked_at(partition: Partition, most: int = 1000) -> Sequence[int]:
    """The clients that checks and statistics look at: all, but of a partition whose clients share samples at most so many, keyed."""
    if partition.exclusive or len(partition) <= most:
        return range(len(partition))
    return sorted(rng.sample(rng.key(0, "looked-at"), len(partition), most))


def call(maker: Any, arguments: Mapping[str, Any]) -> Any:
    """Call ``maker`` with those of the arguments that it takes."""
    takes = inspect.signature(maker).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        return maker(**arguments)
    return maker(**{k: v for k, v in arguments.items() if k in takes})


def transform(task: Task, standardize: bool, augment: bool) -> Any:
    """The task's transform with standardisation (by channel of images, else by feature) and augmentation switched on."""
    made = task.transform
    for key, wanted in (("standardize", standardize), ("augment", augment)):
        if wanted and not isinstance(made, Transform):
            raise ConfigError(f"{key} = true: task {task.name} has a transform of its own; put it there")
    x = task.train["x"]
    if augment and (x.ndim != 4 or min(x.shape[2:]) < 5):
        raise ConfigError(
            f"augment = true: task {task.name} has samples of shape {task.inputs}; crops and flips need images of at least 5 x 5"
        )
    if not isinstance(made, Transform):
        return made
    if standardize:
        flat = x.transpose(0, 1).flatten(1) if x.ndim == 4 else x.flatten(1).T
        moments = [torch.var_mean(channel.double() * made.scale, correction=0) for channel in flat]
        shape = (-1, 1, 1) if x.ndim == 4 else x.shape[1:]
        mean, std = torch.stack([m for _, m in moments]), torch.stack([v for v, _ in moments]).sqrt()
        made = replace(made, mean=mean.reshape(shape), std=torch.where(std > 0, std, 1.0).reshape(shape))
    return replace(made, augment=augment)
