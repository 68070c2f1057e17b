"""The tasks to which a run's model adapts: clients of its own partition that never trained, or of another task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from experiments.adapt.episodes import Episode, is_classified, of_classes, of_clients
from experiments.config.choices import choose
from experiments.config.command_line import parse
from experiments.config.schema import NATURAL, signature
from experiments.runs.data import data
from experiments.runs.setup import Setup
from fl_sim import Task, Transform, rng
from fl_sim.errors import ConfigError


@dataclass(frozen=True)
class Tasks:
    """What a model adapts to."""

    what: str
    """In words."""
    task: Task
    """Holds the samples."""
    episodes: list[Episode]


def unseen_clients(setup: Setup, run: str, most: int, seed: int) -> Tasks:
    """The clients of a run's partition that never trained, at most ``most``. Raises ConfigError without any."""
    held = setup.config.holdout_clients
    if not held:
        cure = "give --task, or train it with --holdout_clients"
        raise ConfigError(f"{run!r}: the run has no clients that never trained (holdout_clients = 0); {cure}")
    clients = setup.partition.working(len(setup.partition) - held, len(setup.partition))
    chosen = some(list(clients), most, seed)
    what = f"{len(chosen)} clients that never trained"
    return Tasks(what, setup.task, of_clients(setup.task, setup.partition, chosen, seed))


def new_tasks(setup: Setup, words: Sequence[str], ways: int, most: int, seed: int) -> Tasks:
    """The tasks that ``words`` (flags of ``experiments.run``: task, partition, clients) name.

    Raises ConfigError for a task that the run's network cannot take, and for the samples of the run itself.
    """
    if "--task" not in words and "--task.name" not in words:
        raise ConfigError(
            f"{' '.join(words)!r}: flags of a task need --task NAME; without it the run's own clients count"
        )
    [config, *_] = parse(for_pictures(setup, words)).configs
    chosen, own = config.task, setup.config.task
    if (chosen.name, dict(chosen.params)) == (own.name, dict(own.params)) and setup.config.data_dir == config.data_dir:
        why = "the run trained on its samples; leave out --task to adapt to the run's clients that never trained"
        raise ConfigError(f"task.name = {chosen.name!r}: {why}, or give another seed or other parameters")
    explicit = any(word.startswith("--partition") for word in words)
    if not explicit and "clients" not in signature(chosen.component):
        task, _, partition = data(replace(config, clients=1, holdout_clients=0))
        if task.clients is not None and not ways:
            [natural] = choose("partition", {"name": NATURAL})
            config = replace(config, partition=natural)
            task, _, partition = data(config)
    else:
        task, _, partition = data(config)
    task = prepared(task, setup)
    if not ways and (explicit or task.clients is not None):
        first = len(partition) - config.holdout_clients if config.holdout_clients else 0
        clients = some(list(partition.working(first, len(partition))), most, seed)
        found, what = of_clients(task, partition, clients, seed), f"{len(clients)} clients of {task.name}"
    else:
        task = replace(task, train=both(task))
        known = int(torch.unique(task.train["y"]).numel()) if is_classified(task) else 0
        ways = ways or min(setup.task.outputs, known)
        found, what = of_classes(task, ways, most, seed), f"{most} episodes of {ways} classes of {task.name}"
    check_fits(setup, task, max(int(e.classes.max()) for e in found) + 1)
    return Tasks(what, replace(task, test={}), found)


def some(clients: list[int], most: int, seed: int) -> list[int]:
    """At most ``most`` of the clients, ascending, drawn by a key."""
    return sorted(clients[i] for i in rng.sample(rng.key(seed, "adapt-clients"), len(clients), min(most, len(clients))))


def for_pictures(setup: Setup, words: Sequence[str]) -> list[str]:
    """The flags, and for the task ``folder`` the size and the colours of the run's samples where they give none.

    Raises ConfigError where the run's samples are no square pictures.
    """
    named = [after for word, after in pairwise(words) if word in ("--task", "--task.name")]
    if named != ["folder"]:
        return list(words)
    shape = setup.task.inputs
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3):
        raise ConfigError(f"task.name = 'folder': the run's samples have shape {shape}, which are no square pictures")
    given = {"--task.size": str(shape[1]), "--task.gray": str(shape[0] == 1)}
    return [*words, *(part for flag, text in given.items() if flag not in words for part in (flag, text))]


def prepared(task: Task, setup: Setup) -> Task:
    """The task, standardised with the run's mean and deviation where the run is."""
    theirs, ours = task.transform, data(setup.config)[0].transform  # that of the setup may be done in advance
    if isinstance(theirs, Transform) and isinstance(ours, Transform) and ours.mean is not None:
        return replace(task, transform=replace(theirs, mean=ours.mean, std=ours.std))
    return task


def both(task: Task) -> dict[str, torch.Tensor]:
    """All samples of a task, test samples too: a new task's are new to the model."""
    return {k: torch.cat([v, task.test[k]]) if task.test else v for k, v in task.train.items()}


def check_fits(setup: Setup, task: Task, ways: int) -> None:
    """Raise ConfigError where the run's network takes other samples, or has too few outputs."""
    if task.inputs != setup.task.inputs:
        what = f"has samples of shape {task.inputs}, the run's network takes {setup.task.inputs}"
        raise ConfigError(f"task.name = {task.name!r}: {what}")
    if is_classified(task) != is_classified(setup.task):
        raise ConfigError(f"task.name = {task.name!r}: one of it and the run's task has classes, the other has not")
    if ways > setup.task.outputs:
        cure = f"choose at most as many (--ways {setup.task.outputs}, or --task.ways)"
        raise ConfigError(
            f"task.name = {task.name!r}: {ways} classes, the run's network has {setup.task.outputs}; {cure}"
        )
