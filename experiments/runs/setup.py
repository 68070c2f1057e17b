"""From a config to the objects that run: task, partition, model, strategy, app, grid. No work is done before all is checked."""

import copy
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flower_strategies

from clients.app import make_app
from clients.learner import make_module, probe
from experiments.config.schema import Config
from experiments.runs.block_size import block_size
from experiments.runs.data import data
from experiments.runs.foreign_strategy import Personalised, shared
from fl_sim import SimulationGrid, Task, tree
from fl_sim.blocks.learner import Learner
from fl_sim.engines.choose import Choice, choose
from fl_sim.errors import ConfigError
from fl_sim.executors.base import Executor
from fl_sim.executors.inline import Inline
from fl_sim.learning.loss import Loss
from fl_sim.learning.measures import SampleFunction
from fl_sim.logs.columns import check_own
from fl_sim.population.partition import Partition
from fl_sim.rounds.driver import EvaluateFn
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from strategies.base.strategy import Strategy, name_of


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


def build(
    config: Config, metrics: Mapping[str, SampleFunction] | None = None, workers: Executor | None = None
) -> Setup:
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
    module = make_module(config.model.thing, config.model.params, task, config.seed, config.model.name)
    loss = Loss(module, task, dtype, config.device, config.precision)
    probe(loss, config.model.name, config.task.name)
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
        config,
        task,
        validation,
        partition,
        loss,
        strategy,
        grid,
        engine,
        records.arrays(loss.initial()),
        train,
        personal,
        central,
    )


READY_BYTES = 256 * 2**20
"""Samples that take less as floats are transformed once, on a CPU; a GPU keeps them as they are stored."""
_ready: dict[tuple[int, torch.dtype], tuple[Task, Task, Tree]] = {}


def ready(task: Task, validation: Tree, dtype: torch.dtype, device: str) -> tuple[Task, Tree]:
    """(task, central validation samples) as they serve best, kept for the next of several runs.

    On a CPU transformed once, where that is cheaper than at each step; on a GPU as they are, those of central evaluation there.
    """
    if device != "cpu":
        return replace(task, test={k: v.to(device) for k, v in task.test.items()}), {
            k: v.to(device) for k, v in validation.items()
        }
    key = id(task), dtype
    if key not in _ready:
        _ready.clear()
        made = task.ready(dtype, READY_BYTES)
        held = (
            validation
            if made is task or not validation
            else task.transform({**validation, "x": validation["x"].to(dtype)}, None)
        )
        _ready[key] = task, made, held
    return _ready[key][1:]


def make_strategy(config: Config, training_clients: int) -> flower_strategies.Strategy:
    """The strategy with the run's numbers. One that is not this project's gets its share of clients from ``cohort`` where it takes one."""
    chosen = config.strategy
    ours = (
        isinstance(chosen.thing, Strategy)
        if chosen.made
        else inspect.isclass(chosen.thing) and issubclass(chosen.thing, Strategy)
    )
    with flower.quiet(least=logging.ERROR):  # it would warn of fraction_evaluate = 0, which is set here
        strategy: Any = (
            copy.deepcopy(chosen.thing)
            if chosen.made
            else chosen.thing(**(chosen.params if ours else shared(config, training_clients)))
        )
    if isinstance(strategy, Strategy):
        strategy.cohort, strategy.seed, strategy.server_lr = (
            config.cohort or training_clients,
            config.seed,
            config.server.lr,
        )
        strategy.weighting = config.weighting or strategy.weighting
        return strategy
    if not isinstance(strategy, flower_strategies.Strategy):
        raise ConfigError(
            f"strategy.name = {chosen.name!r}: makes a {type(strategy).__name__}; it must be a Flower Strategy"
        )
    set_here = {
        "system.stragglers": config.system.stragglers,
        "server.lr": config.server.lr != 1 and config.server.lr,
        "weighting": config.weighting,
        "cohort": config.cohort
        if chosen.made or "fraction_train" not in inspect.signature(chosen.thing).parameters
        else 0,
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


def messages(config: Config) -> tuple[ConfigRecord, ConfigRecord]:
    """What travels to clients for training, and for personal evaluation."""
    local = {f"local.{k}": v for k, v in vars(config.local).items()}
    train = {
        **local,
        "rounds": config.schedule_rounds or config.rounds,
        "seed": config.seed,
        "system.stragglers": config.system.stragglers,
    }
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
    from fl_sim.executors.ray.executor import RayExecutor  # here, because all else works where Ray does not

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
