"""From a config to the objects that run: task, partition, model, strategy, app, grid. No work is done before all is checked."""

import copy
import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flower_strategies
from torch import nn

from clients.app import make_app
from experiments.config import Config
from experiments.data import call, data
from experiments.personal import Personalised
from experiments.values import ConfigError
from fl_sim import SimulationGrid, Task, flower, records, rng, tree
from fl_sim.block import Learner
from fl_sim.engine import Choice, choose
from fl_sim.executor import Executor, Inline
from fl_sim.loss import Batch, Loss
from fl_sim.partition import Partition
from fl_sim.reading import check_own
from fl_sim.rounds import EvaluateFn
from fl_sim.task import SampleFunction
from fl_sim.tree import Tree
from strategies.base import Strategy, name_of

BLOCK, BATCH = 16, 64
"""Clients a block at most, where the config leaves it open: on the loop, and on vmap if their weights take no more than ROOM."""
ROOM = {"cpu": 64 * 2**20, "gpu": 2 * 2**30}
"""Bytes of a block's weights, under which vmap gains from more clients in it."""


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


def build(config: Config, metrics: Mapping[str, SampleFunction] | None = None, workers: Executor | None = None) -> Setup:
    """Make everything, once a run. Raises ValueError (ConfigError) that names the key to mend; nothing was started then.

    ``workers`` run the blocks; None: those that the config asks for.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {config.device!r}: this machine has no usable GPU; use cpu")
    task, validation, partition = data(config)
    check_own(metrics or {})
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    task, validation = ready(task, validation, dtype, config.device)
    task = replace(task, metrics={**task.metrics, **(metrics or {})})
    with rng.keyed_globals(rng.key(config.seed, "init")):
        module = make_model(config, task)
    loss = Loss(module, task, dtype, config.device, config.precision)
    probe(config, loss)
    strategy = make_strategy(config, len(partition) - config.holdout_clients)
    wanted = {"ray": config.ray.engine, "flower": "loop"}.get(config.engine, config.engine)
    engine = choose(wanted, module, config.device)
    cohort = config.cohort or len(partition) - config.holdout_clients
    config = replace(config, block_size=config.block_size or block_size(engine.name, cohort, loss))
    app = make_app(loss, partition, {name_of(type(strategy)): type(strategy)})
    workers = workers or executor(config, app.learner, engine.name)
    grid = SimulationGrid(
        app,
        len(partition),
        holdout_clients=config.holdout_clients,
        block_size=config.block_size,
        executor=workers,
        seed=config.seed,
    )
    train, personal = messages(config)
    central = evaluator(config, loss, validation, workers)
    return Setup(
        config, task, validation, partition, loss, strategy, grid, engine, records.arrays(loss.initial()), train, personal, central
    )


def block_size(engine: str, cohort: int, loss: Loss) -> int:
    """Clients a block where the config does not say: a fixed rule, the same for any number of workers.

    The loop cuts a round into sixteen blocks or more, for any few workers to share. vmap gains from each client of a block
    (logistic regression in blocks of 64 takes .53 of the time of blocks of 16, the 2NN .70): up to BATCH, on a CPU in four blocks
    or more unless they had fewer than BLOCK clients; a GPU is filled by one process with large blocks.
    """
    if engine != "vmap":
        return min(BLOCK, math.ceil(cohort / BLOCK))
    gpu = loss.device.type != "cpu"
    weights = sum(v.numel() * v.element_size() for v in loss.initial().values())
    most = BATCH if gpu else min(BATCH, math.ceil(cohort / 4))
    return max(BLOCK, min(most, ROOM["gpu" if gpu else "cpu"] // max(weights, 1)))


READY_BYTES = 256 * 2**20
"""Samples that take less as floats are transformed once, on a CPU; a GPU keeps them as they are stored."""
_ready: dict[tuple[int, torch.dtype], tuple[Task, Task, Tree]] = {}


def ready(task: Task, validation: Tree, dtype: torch.dtype, device: str) -> tuple[Task, Tree]:
    """(task, central validation samples) as they serve best, kept for the next of several runs.

    On a CPU transformed once, where that is cheaper than at each step; on a GPU as they are, those of central evaluation there.
    """
    if device != "cpu":
        return replace(task, test={k: v.to(device) for k, v in task.test.items()}), {k: v.to(device) for k, v in validation.items()}
    key = id(task), dtype
    if key not in _ready:
        _ready.clear()
        made = task.ready(dtype, READY_BYTES)
        held = validation if made is task or not validation else task.transform({**validation, "x": validation["x"].to(dtype)}, None)
        _ready[key] = task, made, held
    return _ready[key][1:]


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
    train = {**local, "rounds": config.schedule_rounds or config.rounds, "seed": config.seed, "system.stragglers": config.system.stragglers}
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


def executor(config: Config, learner: Learner, engine: str) -> Executor:
    """Who runs blocks: this process, or Ray's workers, which start with the first block."""
    if config.engine != "ray":
        return Inline(learner, engine, config.chunk)
    from fl_sim.engine.ray import RayExecutor  # here, because all else works where Ray does not

    return RayExecutor(learner, engine, config.chunk, config.ray, config.threads)


def evaluator(config: Config, loss: Loss, validation: Tree, workers: Executor) -> EvaluateFn:
    """Central evaluation on test and validation samples, every ``evaluate_every`` rounds and after the last."""

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round % config.evaluate_every and server_round != config.rounds:
            return None
        model = tree.to(records.model(arrays), loss.dtype)  # FedAdam, say, turns float32 into float64
        test = workers.evaluate(model, loss.task.test)
        held = workers.evaluate(model, validation)
        return MetricRecord({**test, **{f"val_{k}": v for k, v in held.items()}})

    return central
