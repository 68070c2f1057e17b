"""A task's samples and their owners, prepared in the same way in a simulation and on a device."""

import inspect
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fl_sim import Task, Transform, registry, rng
from fl_sim.errors import ConfigError
from fl_sim.learning.samples.task_checks import checked
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree

PACKAGES = ("fl_sim", "strategies", "clients", "experiments")
"""This project's own packages."""
NEVER_TRAIN = ("holdout_clients", "validation_clients")
"""Settings that say how many clients never train; a task with such a parameter is told."""
LAYOUT = ("class_axis", "ignore_index")
"""Settings ``task.*`` that every task has: fields of ``Task``, which its maker need not know."""


def laid_out(task: Task, settings: Mapping[str, Any]) -> Task:
    """The task with those of the LAYOUT that a run's settings ``task.*`` give; where they are None it keeps its own."""
    return replace(task, **{k: settings[k] for k in LAYOUT if settings.get(k) is not None}).settled()


@dataclass(frozen=True)
class Prepared:
    """How samples are prepared: the settings ``standardize``, ``standardize_on`` and ``augment`` of a run."""

    standardize: bool = False
    standardize_on: str = "train"
    """Whose samples the mean and the deviation are of: ``train`` (those that clients train on) or ``all``."""
    augment: bool = False
    never_train: int = 0
    """How many clients, those with the last ids, never train."""


def without_validation(task: Task, seed: int, validation: float) -> tuple[Task, Tree]:
    """(the checked task on the samples that its clients share out, the central validation samples).

    Parameters
    ----------
    task : Task
        The task with all of its training samples.
    seed : int
        Seed of the partition; it also keys the choice of validation samples.
    validation : float
        Share of the training samples that is kept centrally, 0..1.

    Raises
    ------
    ValueError
        For samples that cannot be trained on; see ``fl_sim.learning.samples.task_checks``.
    """
    kept: Tree = {}
    task = checked(task)
    count = round(validation * task.num_train)
    if count and task.turns:
        why = f"would take samples out of the episodes of task {task.name!r}, whose classes must stay of one size"
        raise ValueError(f"validation = {validation}: {why}; leave it out, and set --holdout_clients")
    if count == task.num_train:
        raise ValueError(
            f"validation = {validation}: keeps all {count} training samples of {task.name!r}; choose a smaller share"
        )
    if count:
        order = rng.permutation(rng.key(seed, "validation"), task.num_train)
        kept = task.subset(np.sort(order[:count])).train
        task = task.subset(np.sort(order[count:]))
    return task, kept


def divided(
    task: Task,
    divide: object,
    clients: int,
    seed: int,
    held_out: float,
    name: str,
    unseen: tuple[int, float] | None = None,
    **params: object,
) -> Partition:
    """The partition of the task's training samples, with each client's held-out part.

    ``unseen`` : (how many clients never train, the share that these hold out); None: they hold out ``held_out`` too.

    ``divide`` is a function ``(task, clients, seed, **params)``, a Partition, or a list of index arrays; ``name`` is
    its name in error messages. Raises ConfigError as ``as_partition`` does.
    """
    with making("partition.name", name):
        partition = divide(task, clients, seed, **params) if callable(divide) else divide
    whole = as_partition(partition, name, task.num_train)
    if task.turns != whole.turns:
        why = f"each client of task {task.name!r} numbers its classes in its own way"
        raise ConfigError(f"partition.name = {name!r}: {why}, so that their samples cannot be mixed; use natural")
    return whole.hold_out(held_out, seed) if unseen is None else whole.hold_out_unseen(held_out, *unseen, seed)


def transformed(task: Task, partition: Partition, how: Prepared) -> Task:
    """The task with its transform, which standardises and augments as ``how`` says.

    A simulation and each device call this, so that they standardise with the same numbers. Raises ConfigError as
    ``transform`` does.
    """
    rows = None
    if how.standardize and how.standardize_on == "train":
        rows = partition.trained_on(len(partition) - how.never_train)
    return replace(task, transform=transform(task, how.standardize, how.augment, rows))


def as_partition(source: Any, name: str, samples: int) -> Partition:
    """``source`` as a checked Partition; it is one already, or a list with one index array for each client.

    Raises ConfigError where a client owns no sample, an index is out of range, or two clients own the same sample of a
    partition that does not allow it. Where clients share samples there may be millions of clients, so that only those
    of ``sampled_clients`` are checked.
    """
    if not isinstance(source, Partition):
        try:
            source = Partition.of([_indices(part) for part in source])
        except (TypeError, ValueError) as error:
            what = f"makes a {type(source).__name__} that cannot be read ({error})"
            raise ConfigError(
                f"partition.name = {name!r}: {what}; it must make a fl_sim.Partition, or one index array a client"
            ) from error
    partition: Partition = source
    kinds = partition.size_counts()
    empty = int(kinds[kinds[:, :2].sum(1) < 1, 2].sum()) - len(partition.idle)
    if empty or not len(partition):
        raise ConfigError(
            f"partition.name = {name!r}: {empty} of {len(partition)} clients own no sample; each must own one"
        )
    owned = np.sort(np.concatenate([partition.client(c) for c in sampled_clients(partition)]))
    if owned[0] < 0 or owned[-1] >= samples:
        bad = owned[0] if owned[0] < 0 else owned[-1]
        raise ConfigError(f"partition.name = {name!r}: index {bad}; indices must be numbers of 0..{samples - 1}")
    if partition.exclusive and (owned[1:] == owned[:-1]).any():
        rule = f"different numbers of 0..{samples - 1}, each owned by one client"
        raise ConfigError(f"partition.name = {name!r}: indices must be {rule}")
    return partition


def _indices(part: Any) -> np.ndarray:
    """(n,) int64: the indices of one client. Raises ValueError for a mask, and for what are no whole numbers."""
    found = np.asarray(part).reshape(-1)
    whole = found if found.dtype.kind in "iu" else found.astype(np.int64)
    if found.dtype.kind == "b" or (whole != found).any():
        what = (
            "a mask of truth values; np.flatnonzero gives its indices"
            if found.dtype.kind == "b"
            else "no whole numbers"
        )
        raise ValueError(f"a client's indices are {what}")
    return whole.astype(np.int64)


def sampled_clients(partition: Partition, most: int = 1000) -> Sequence[int]:
    """The clients that checks and statistics examine: all with samples, or at most ``most`` where they are shared.

    The choice of these is keyed.
    """
    if partition.exclusive or len(partition) <= most:
        return partition.working(0, len(partition))
    return sorted(rng.sample(rng.key(0, "looked-at"), len(partition), most))


@contextmanager
def making(key: str, name: str) -> Iterator[None]:
    """Context manager around code of a user that makes a component: an error of any type becomes a ConfigError.

    KeyboardInterrupt passes, and so do a ValueError and an OSError of this project's own code, which name the cause.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = any(last.filename.startswith(os.path.join(registry.HOME, package, "")) for package in PACKAGES)
        if isinstance(error, ConfigError) or (own and isinstance(error, (ValueError, OSError))):
            raise
        where = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        raise ConfigError(f"{key} = {name!r}: cannot be made: {where}") from error


def call(maker: Any, arguments: Mapping[str, Any]) -> Any:
    """Call ``maker`` with those of the arguments that it takes."""
    takes = inspect.signature(maker).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        return maker(**arguments)
    return maker(**{k: v for k, v in arguments.items() if k in takes})


def transform(task: Task, standardize: bool, augment: bool, rows: np.ndarray | None = None) -> Any:
    """The task's transform, with standardisation and augmentation switched on if requested.

    Images are standardised by channel, other samples by feature, with the mean and the standard deviation of the
    training samples ``rows`` (default: all); a deviation of 0 becomes 1. Raises ConfigError for a task with a transform
    of its own, and for augmentation of samples that are no images of at least 5 x 5 pixels.
    """
    current = task.transform
    for key, wanted in (("standardize", standardize), ("augment", augment)):
        if wanted and not isinstance(current, Transform):
            raise ConfigError(f"{key} = true: task {task.name} has a transform of its own; put it there")
    x = task.train["x"]
    if augment and (x.ndim != 4 or min(x.shape[2:]) < 5):
        needs = "crops and flips need images of at least 5 x 5"
        raise ConfigError(f"augment = true: task {task.name} has samples of shape {task.inputs}; {needs}")
    if augment and task.train["y"].ndim > 2:
        why = "its targets are pictures or sequences too, which crops and flips would not follow"
        raise ConfigError(f"augment = true: task {task.name}: {why}; augment in a transform of the task's own")
    if not isinstance(current, Transform):
        return current
    if standardize:
        used = x if rows is None or len(rows) == len(x) else x[torch.from_numpy(rows)]
        flat = used.transpose(0, 1).flatten(1) if x.ndim == 4 else used.flatten(1).T
        moments = [torch.var_mean(channel.double() * current.scale, correction=0) for channel in flat]
        shape = (-1, 1, 1) if x.ndim == 4 else x.shape[1:]
        mean, std = torch.stack([m for _, m in moments]), torch.stack([v for v, _ in moments]).sqrt()
        current = replace(current, mean=mean.reshape(shape), std=torch.where(std > 0, std, 1.0).reshape(shape))
    return replace(current, augment=augment)
