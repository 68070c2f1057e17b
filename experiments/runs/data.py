"""From a config to its samples and the clients that own them."""

import os
from dataclasses import replace

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from clients.feature_shift import shifted
from clients.shares import (
    LAYOUT,
    NEVER_TRAIN,
    Prepared,
    call,
    divided,
    laid_out,
    making,
    transformed,
    without_validation,
)
from clients.tasks.dataset import as_task
from experiments.config.schema import NATURAL, Config, signature
from fl_sim import Task
from fl_sim.blocks.learner import Learner
from fl_sim.errors import ConfigError
from fl_sim.executors.base import Executor
from fl_sim.learning.loss import Loss
from fl_sim.population.partition import Partition
from fl_sim.rounds.central_evaluation import validation_loss
from fl_sim.tree import Tree
from strategies.base.naming import name_of
from strategies.base.strategy import Strategy


def data(config: Config) -> tuple[Task, Tree, Partition]:
    """The task on the samples that its clients share out, the central validation samples, and the partition.

    The result is kept, because several runs often differ in other settings only. Raises ConfigError where the cohort
    or personal evaluation needs more clients or samples than there are.
    """
    chosen = [getattr(config, name) for name in ("task", "partition")]
    told = any(name in signature(config.task.component) for name in NEVER_TRAIN)
    matters = told or config.partition.params.get("unseen_held_out") is not None
    unseen = [getattr(config, name) for name in NEVER_TRAIN] if matters else 0
    numbers = (config.data_dir, config.validation, config.clients, how_prepared(config), unseen)
    key = repr(([(c.name, c.params, id(c.component)) for c in chosen], numbers, os.environ.get("FL_SIM_DATA")))
    if key not in _cache:
        _cache.clear()
        _cache[key] = [c.component for c in chosen], _data(config)
    task, held, partition = _cache[key][1]
    if config.validation_clients:
        check_validation(config, partition)
    if config.personalize_steps and not partition.size_counts()[:, 1].any():
        share = config.partition.params.get("held_out")
        what = f"partition.held_out = {share} leaves no client a test sample of its own"
        cure = "choose fewer clients or a larger share"
        raise ConfigError(f"personalize_steps = {config.personalize_steps}: {what}; {cure}")
    training = len(partition.working(0, len(partition) - config.never_train))
    if training < 1 or config.cohort > training:
        counts = f"of {len(partition)} clients, holdout_clients = {config.holdout_clients} never train"
        counts += f", nor do validation_clients = {config.validation_clients}" * bool(config.validation_clients)
        counts += f" and {len(partition.idle)} have no training samples" * bool(len(partition.idle))
        cure = f"choose a cohort of at most {max(training, 0)}, or 0 for all, and keep one to train"
        raise ConfigError(f"cohort = {config.cohort}: {counts}; {cure}")
    return task, held, partition


_cache: dict[str, tuple[list[object], tuple[Task, Tree, Partition]]] = {}
"""The last result of ``data``, by the settings that it depends on, with the components whose ids are in the key.

A component that is kept alive shares its id with no other.
"""


def _data(config: Config) -> tuple[Task, Tree, Partition]:
    chosen, divide = config.task, config.partition
    if config.data_dir is not None and not os.path.isdir(config.data_dir):
        cure = f"name one that holds {chosen.name}, or leave it out"
        raise ConfigError(f"data_dir = {config.data_dir!r}: no such folder; {cure}")
    supplied = {"data_dir": config.data_dir, "clients": config.clients or None}
    supplied |= {k: getattr(config, k) for k in NEVER_TRAIN if k in signature(chosen.component)}
    arguments = {k: v for k, v in chosen.params.items() if v is not None or k not in LAYOUT}
    arguments |= {k: v for k, v in supplied.items() if v is not None}
    with making("task.name", chosen.name):
        task = as_task(chosen.component if chosen.is_object else call(chosen.component, arguments))
    if not isinstance(task, Task):
        cure = "it must be a Task: from_arrays(x, y) or from_dataset(dataset) makes one"
        raise ConfigError(f"task.name = {chosen.name!r}: is or makes a {type(task).__name__}; {cure}")
    task = laid_out(task, chosen.params)
    params = dict(divide.params)
    seed, held_out, of_unseen = params.pop("seed"), params.pop("held_out"), params.pop("unseen_held_out")
    strength = params.pop("feature_shift")
    unseen = None if of_unseen is None else (config.never_train, of_unseen)
    task, kept = without_validation(task, seed, config.validation)
    count = config.clients or (task.num_clients if divide.name == NATURAL and task.clients is not None else 10)
    partition = divided(task, divide.component, count, seed, held_out, divide.name, unseen, **params)
    task = shifted(task, partition, strength, seed)
    return transformed(task, partition, how_prepared(config)), kept, partition


def how_prepared(config: Config) -> Prepared:
    """How the run's samples are prepared; the clients that never train matter only to ``standardize_on = train``."""
    matters = config.standardize and config.standardize_on == "train"
    never_train = config.never_train if matters else 0
    return Prepared(config.standardize, config.standardize_on, config.augment, never_train)


def names(config: Config, task: Task, partition: Partition) -> dict[str, list[object]]:
    """Content of ``names.json``: tables that are no plain numbering 0, 1, 2 ...; empty where there are none.

    Returns
    -------
    dict
        ``classes``: the name of each class. ``clients``: the name of each client where clients are natural ones; where
        each is a group of natural clients, the list of their names.
    """
    found: dict[str, list[object]] = {}
    if task.class_names is not None:
        found["classes"] = task.class_names.tolist()
    if task.clients is None or task.client_names is None or config.partition.name != NATURAL:
        return found
    known = task.client_names
    if len(partition) < task.num_clients:
        owners = [np.unique(task.clients[partition.client(c)]) for c in range(len(partition))]
        found["clients"] = [known[mine].tolist() for mine in owners]
    elif not (known.dtype.kind in "iu" and np.array_equal(known, np.arange(len(known)))):
        found["clients"] = known.tolist()
    return found


def take_task(settings: dict[str, object]) -> None:
    """Turn a ``task`` of samples into a Task, and partition one with natural clients by these. Raises ConfigError."""
    if "task" in settings:
        try:
            settings["task"] = as_task(settings["task"])
        except ValueError as error:
            raise ConfigError(f"task = a {type(settings['task']).__name__}: {error}") from error
    if getattr(settings.get("task"), "clients", None) is not None:
        settings.setdefault("partition", "natural")


def check_sizes(partition: Partition, most: float, strategy: FlowerStrategy, training_clients: int) -> None:
    """Raise ConfigError for a client of more than ``system.max_examples`` training samples, or too few to train.

    How few depends on the algorithm, and so does how few clients there may be; only the first ``training_clients``
    train.
    """
    if isinstance(strategy, Strategy) and (fewest := strategy.least_clients) > training_clients:
        name = name_of(type(strategy))
        what = f"only {training_clients} train, and strategy {name} needs {fewest} clients that train"
        raise ConfigError(f"clients: {what}, one for each edge, say; choose more clients or fewer edges")
    largest = int(partition.size_counts()[:, 0].max(initial=0))
    if largest > most:
        what = f"a client of this partition owns {largest} training samples"
        raise ConfigError(f"system.max_examples = {most:g}: {what}; give at least {largest}")
    least = strategy.least_samples if isinstance(strategy, Strategy) else 1
    sizes = partition.size_counts(training_clients)[:, 0]
    smallest = int(sizes[sizes > 0].min(initial=least))
    if smallest < least:
        keys = ("support_size", "query_size")
        said = ", ".join(f"strategy.{k} = {getattr(strategy, k)}" for k in keys if getattr(strategy, k, 0))
        what = f"a client needs {least} training samples, and the smallest has {smallest}"
        raise ConfigError(f"{said or 'strategy.least_samples'}: {what}; choose smaller sizes, or fewer clients")


def check_validation(config: Config, partition: Partition) -> None:
    """Raise ConfigError for validation clients that cannot be told from unseen ones, or that hold nothing out."""
    count, first = config.validation_clients, len(partition) - config.never_train
    if first < 1:
        what = f"with holdout_clients = {config.holdout_clients} these are all {len(partition)} clients or more"
        raise ConfigError(f"validation_clients = {count}: {what}, and one must train; choose fewer")
    if not partition.exclusive:
        why = f"clients of partition {config.partition.name} share samples, those that unseen ones are tested on too"
        raise ConfigError(f"validation_clients = {count}: {why}; choose a partition with one owner a sample")
    if not any(partition.sizes(c)[1] for c in partition.working(first, first + count)):
        what = "none of them holds out a sample to be evaluated on"
        raise ConfigError(f"validation_clients = {count}: {what}; choose more, or a larger partition.held_out")


def of_validation_clients(config: Config, learner: Learner) -> Tree:
    """All samples that the validation clients hold out, in the order of clients; {} without validation clients."""
    first = len(learner.partition) - config.never_train
    parts = learner.partition.working(first, first + config.validation_clients)
    rows = [learner.partition.client(c)[learner.partition.sizes(c)[0] :] for c in parts]
    if not rows:
        return {}
    chosen = torch.from_numpy(np.concatenate(rows)).to(learner.data["y"].device)
    return {k: v[chosen] for k, v in learner.data.items()}


def let_validate(strategy: object, loss: Loss, validation: Tree, workers: Executor) -> None:
    """Give a strategy that chooses by it the loss on these samples."""
    if isinstance(strategy, Strategy) and strategy.needs_validation:
        strategy.validate = validation_loss(loss, validation, workers)


TRANSFORMED_BYTES = 256 * 2**20
"""Samples that take less as floats are transformed once, on a CPU; a GPU keeps them as they are stored."""
_transformed: dict[tuple[int, torch.dtype], tuple[Task, Task, Tree]] = {}


def transformed_once(task: Task, validation: Tree, dtype: torch.dtype, device: str) -> tuple[Task, Tree]:
    """(task, central validation samples) in the form that takes the least time; kept for the next of several runs.

    On a CPU all samples are transformed once, unless that takes too much memory. For a GPU they stay as they are
    stored, and those of central evaluation are copied to it.
    """
    if device != "cpu":
        test, held = ({k: v.to(device) for k, v in samples.items()} for samples in (task.test, validation))
        return replace(task, test=test), held
    key = id(task), dtype
    if key not in _transformed:
        _transformed.clear()
        ready, held = task.ready(dtype, TRANSFORMED_BYTES), validation
        if ready is not task and validation:
            held = task.transform({**validation, "x": validation["x"].to(dtype)}, None)
        _transformed[key] = task, ready, held
    return _transformed[key][1:]
