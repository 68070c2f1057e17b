"""From a config to the objects that run: task, partition, model, strategy, app, grid. No work is done before all is checked."""

import copy
import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flower_strategies
from torch import nn

from clients.app import make_app
from experiments.config import NATURAL, Config
from experiments.personal import Personalised
from experiments.values import ConfigError
from fl_sim import SimulationGrid, Task, Transform, flower, records, rng, tree
from fl_sim.engine import Choice, choose
from fl_sim.evaluate import evaluate
from fl_sim.loss import Batch, Loss
from fl_sim.partition import Partition
from fl_sim.reading import check_own
from fl_sim.rounds import EvaluateFn
from fl_sim.task import SampleFunction
from fl_sim.tree import Tree
from strategies.base import Strategy, name_of


@dataclass(frozen=True)
class Setup:
    """All that a run needs."""

    config: Config
    task: Task
    validation: Tree
    partition: Partition
    loss: Loss
    strategy: flower_strategies.Strategy
    grid: SimulationGrid
    engine: Choice
    initial: ArrayRecord
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn


def build(config: Config, metrics: Mapping[str, SampleFunction] | None = None) -> Setup:
    """Make everything, once a run. Raises ValueError (ConfigError) that names the key to mend; nothing was started then."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {config.device!r}: this machine has no usable GPU; use cpu")
    task, validation, partition = data(config)
    check_own(metrics or {})
    task = replace(task, metrics={**task.metrics, **(metrics or {})})
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    with rng.keyed_globals(rng.key(config.seed, "init")):
        module = make_model(config, task)
    loss = Loss(module, task, dtype, config.device)
    probe(config, loss)
    strategy = make_strategy(config, len(partition) - config.holdout_clients)
    engine = choose(config.engine, module, config.device)
    grid = SimulationGrid(
        make_app(loss, partition, {name_of(type(strategy)): type(strategy)}),
        len(partition),
        holdout_clients=config.holdout_clients,
        engine=engine.name,
        block_size=config.block_size,
        chunk=config.chunk,
        seed=config.seed,
    )
    train, personal = messages(config)
    central = evaluator(config, loss, validation)
    return Setup(
        config, task, validation, partition, loss, strategy, grid, engine, records.arrays(loss.initial()), train, personal, central
    )


def data(config: Config) -> tuple[Task, Tree, Partition]:
    """(the task on what its clients share out, the central validation samples, who owns what); kept for the next of several runs."""
    chosen = [getattr(config, name) for name in ("task", "partition")]
    numbers = (config.data_dir, config.validation, config.clients, config.standardize, config.augment)
    key = repr(([(c.name, c.params, id(c.thing)) for c in chosen], numbers, os.environ.get("FL_SIM_DATA")))
    if key not in _made:
        _made.clear()
        _made[key] = _data(config)
    task, held, partition = _made[key]
    if config.personalize_steps and not partition.held_out.any():
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
    """A Partition, also from one index array a client. Raises ConfigError where some index is no training sample, or is owned twice."""
    if not isinstance(made, Partition):
        try:
            made = Partition.of([np.asarray(part, dtype=np.int64).reshape(-1) for part in made])
        except (TypeError, ValueError) as error:
            what = f"makes a {type(made).__name__} that cannot be read ({error})"
            raise ConfigError(f"partition.name = {name!r}: {what}; it must make a fl_sim.Partition, or one index array a client") from error
    owned, sizes = np.sort(made.indices), np.diff(made.starts)
    if not len(sizes) or sizes.min() < 1:
        raise ConfigError(f"partition.name = {name!r}: {int((sizes < 1).sum())} of {len(sizes)} clients own no sample; each must own one")
    if owned[0] < 0 or owned[-1] >= samples or (owned[1:] == owned[:-1]).any():
        raise ConfigError(f"partition.name = {name!r}: indices must be different numbers of 0..{samples - 1}, each owned by one client")
    partition: Partition = made
    return partition


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


def make_model(config: Config, task: Task) -> nn.Module:
    """The model for the task's shapes; a ready-made module is copied, so that each run starts from the same."""
    chosen = config.model
    arguments = {"inputs": task.inputs, "outputs": task.outputs, **chosen.params}
    module = copy.deepcopy(chosen.thing) if chosen.made else call(chosen.thing, arguments)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model.name = {chosen.name!r}: makes a {type(module).__name__}; it must make a torch.nn.Module")
    return module


def probe(config: Config, loss: Loss) -> None:
    """Try model, loss and metrics on two samples. Raises ConfigError where they do not fit the task."""
    rows = {k: v[:2].to(loss.device) for k, v in loss.task.train.items()}
    try:
        with torch.no_grad():
            loss.metrics(loss.initial(), Batch(rows, torch.zeros(2, dtype=torch.int32, device=loss.device)))
    except Exception as error:
        what = f"cannot take task {config.task.name}'s samples of shape {loss.task.inputs}, or its loss or a metric fails on them"
        raise ConfigError(f"model.name = {config.model.name!r}: {what}: {type(error).__name__}: {error}") from error


def make_strategy(config: Config, training_clients: int) -> flower_strategies.Strategy:
    """The strategy with the run's numbers. One that is not this project's gets its share of clients from ``cohort`` where it takes one."""
    chosen = config.strategy
    ours = isinstance(chosen.thing, Strategy) if chosen.made else inspect.isclass(chosen.thing) and issubclass(chosen.thing, Strategy)
    with flower.quiet(least=logging.ERROR):  # it would warn of fraction_evaluate = 0, which is set here
        strategy: Any = (
            copy.deepcopy(chosen.thing) if chosen.made else chosen.thing(**(chosen.params if ours else shared(config, training_clients)))
        )
    if isinstance(strategy, Strategy):
        strategy.cohort, strategy.seed, strategy.server_lr = config.cohort or training_clients, config.seed, config.server.lr
        strategy.weighting = config.weighting or strategy.weighting
        return strategy
    if not isinstance(strategy, flower_strategies.Strategy):
        raise ConfigError(f"strategy.name = {chosen.name!r}: makes a {type(strategy).__name__}; it must be a Flower Strategy")
    set_here = {
        "system.stragglers": config.system.stragglers,
        "server.lr": config.server.lr != 1 and config.server.lr,
        "weighting": config.weighting,
        "cohort": config.cohort if chosen.made or "fraction_train" not in inspect.signature(chosen.thing).parameters else 0,
    }
    if mu := getattr(strategy, "proximal_mu", 0):
        what = f"{chosen.name} only asks clients for a proximal term, which plain clients do not have"
        raise ConfigError(f"strategy.proximal_mu = {mu!r}: {what}; use --strategy fedprox --strategy.mu")
    for key, value in set_here.items():
        if value:
            raise ConfigError(
                f"{key} = {value!r}: strategy {chosen.name} is not one of this project's and decides that itself; leave it out"
            )
    return Personalised(strategy, config.seed) if config.personalize_steps else strategy


def shared(config: Config, training_clients: int) -> dict[str, Any]:
    """Parameters of a strategy of Flower's: ``cohort`` of the clients train and none evaluate, unless its own parameters were set."""
    known = inspect.signature(config.strategy.thing).parameters
    params, cohort = dict(config.strategy.params), config.cohort or training_clients
    given = {k for k in params if k in known and params[k] != known[k].default}
    choosing = sorted(given & {"fraction_train", "min_train_nodes", "min_available_nodes"})
    if choosing and config.cohort:
        key = choosing[0]
        raise ConfigError(f"cohort = {cohort}, strategy.{key} = {params[key]!r}: both say how many clients train; give one of them")
    if "fraction_train" in known and not choosing:
        params |= {"fraction_train": cohort / training_clients, "min_train_nodes": cohort, "min_available_nodes": cohort}
    if "fraction_evaluate" in known and not given & {"fraction_evaluate", "min_evaluate_nodes"}:
        params |= {"fraction_evaluate": 0.0, "min_evaluate_nodes": 0}
    return params


def messages(config: Config) -> tuple[ConfigRecord, ConfigRecord]:
    """What travels to clients for training, and for personal evaluation."""
    local = {f"local.{k}": v for k, v in vars(config.local).items()}
    train = {**local, "rounds": config.rounds, "seed": config.seed, "system.stragglers": config.system.stragglers}
    personal = {
        "steps": config.personalize_steps,
        "lr": config.personalize_lr or config.local.lr,
        "batch_size": config.personalize_batch_size or config.local.batch_size,
        "clients": config.personalize_clients,
        "every": config.personalize_every,
    }
    return records.config(train), records.config(
        {**{f"personalize.{k}": v for k, v in personal.items()}, "rounds": config.rounds, "seed": config.seed}
    )


def evaluator(config: Config, loss: Loss, validation: Tree) -> EvaluateFn:
    """Central evaluation on test and validation samples, every ``evaluate_every`` rounds and after the last."""

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round % config.evaluate_every and server_round != config.rounds:
            return None
        model = tree.to(records.model(arrays), loss.dtype)  # FedAdam, say, turns float32 into float64
        test = evaluate(loss, model, loss.task.test)
        held = evaluate(loss, model, validation)
        return MetricRecord({**test, **{f"val_{k}": v for k, v in held.items()}})

    return central
