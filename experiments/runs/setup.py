"""From a config to the objects that run: task, partition, model, strategy, app, grid.

All settings are checked before any work.
"""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import strategy as flower_strategies

from clients.app import LearnerApp, make_app
from clients.network import Network, network
from clients.shares import NEVER_TRAIN, making
from experiments.config.schema import Config, refused_by
from experiments.runs.block_size import fitted
from experiments.runs.checks.attacked import attackers
from experiments.runs.checks.coded import check_coding, codec_settings, own_codecs
from experiments.runs.checks.coded_down import sent_models
from experiments.runs.data import check_sizes, data, let_validate, of_validation_clients, transformed_once
from experiments.runs.foreign_strategy import Personalised, adapt, shared
from experiments.runs.virtual_time.run_clock import asked_clients, clock
from fl_sim import SimulationGrid, Task
from fl_sim.blocks.learner import Learner
from fl_sim.dotted import flatten
from fl_sim.engines.choose import Choice
from fl_sim.errors import ConfigError
from fl_sim.executors.base import Executor
from fl_sim.executors.inline import Inline
from fl_sim.executors.watched import Watched
from fl_sim.grids.base import ClientGrid
from fl_sim.learning.loss import Loss
from fl_sim.learning.measures import SampleFunction, check_functions
from fl_sim.learning.networks import home_leaves
from fl_sim.learning.samples.task_checks import check_range
from fl_sim.learning.sets.set_checks import check_set_metrics, chosen_metrics, columns_of
from fl_sim.logs.columns import check_own
from fl_sim.logs.libraries import library_lines
from fl_sim.population.partition import Partition
from fl_sim.rounds.central_evaluation import evaluator, rows_of_training
from fl_sim.rounds.round_evaluation import EvaluateFn
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.arrivals import AsynchronousStrategy
from strategies.base.naming import name_of
from strategies.base.strategy import Strategy


@dataclass(frozen=True)
class Setup:
    """All that a run needs."""

    config: Config
    """The config, with the block size that was chosen."""
    task: Task
    """The task, on the samples that its clients share out."""
    validation: Tree
    """Central validation samples; empty where there are none."""
    partition: Partition
    learner: Learner
    """What training needs besides a message: samples, partition, loss, rules."""
    strategy: flower_strategies.Strategy
    grid: ClientGrid
    """Where the rounds' messages go."""
    executor: Executor
    """Runs the blocks of a simulation, and central evaluation."""
    engine: Choice
    initial: ArrayRecord
    """The model of round 0."""
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn
    notes: tuple[str, ...] = ()
    """What the run does with the network that its user may not expect, one sentence each."""
    own_metrics: tuple[str, ...] = ()
    """The names of metrics and set metrics that were given to ``run(...)``, and that no config has."""

    @property
    def loss(self) -> Loss:
        """The learner's loss."""
        return self.learner.loss


def build(
    config: Config,
    metrics: Mapping[str, SampleFunction] | None = None,
    workers: Executor | None = None,
    set_metrics: Mapping[str, object] | None = None,
) -> Setup:
    """Build everything that a run needs; nothing is started.

    Parameters
    ----------
    metrics, set_metrics : Mapping, optional
        The user's own by name, besides those of the task and of the config: see ``experiments.run.run``.
    workers : Executor, optional
        Runs the blocks; default: the executor that the config names.

    Raises
    ------
    ValueError
        Mostly ConfigError; the message names the setting to change.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {config.device!r}: this machine has no usable GPU; use cpu")
    task, validation, partition = data(config)
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    check_range(task, dtype)
    task, validation = transformed_once(task, validation, dtype, config.device)
    task = with_metrics(task, metrics or {}, config.set_metrics, set_metrics or {})
    loss, engine, notes = of_config(config, replace(task, client_names=None, class_names=None), dtype)  # to workers
    rows = rows_of_training(partition, config.never_train, loss.device) if config.evaluate_train else None
    more = {} if rows is None else {"training": len(rows)}
    check_set_metrics(loss, validation, partition, config.personalize_steps, more)
    training_clients = len(partition.working(0, len(partition) - config.never_train))
    strategy = make_strategy(config, training_clients)
    check_sizes(partition, config.system.max_examples, strategy, training_clients)
    told = told_of(strategy, loss, config)
    app = make_app(loss, partition, own_classes(config, strategy), config.silo, config.log_drift)
    train, personal = messages(config)
    engine, config = fitted(config, engine, app.learner, strategy, train)
    workers = workers or make_executor(config, app.learner, engine.name)
    grid = make_grid(config, app, len(partition), workers, strategy)
    grid.time = clock(config, len(partition), training_clients, strategy)
    let_validate(strategy, loss, of_validation_clients(config, app.learner) or validation, workers)
    return Setup(
        config=config,
        task=task,
        validation=validation,
        partition=partition,
        learner=app.learner,
        strategy=strategy,
        grid=grid,
        executor=workers,
        engine=engine,
        initial=records.encode(loss.initial()),
        train_config=train,
        evaluate_config=personal,
        evaluate_fn=evaluator(app.learner, validation, workers, rows),
        notes=(*notes, *told),
        own_metrics=(*(metrics or {}), *(set_metrics or {})),
    )


def own_classes(config: Config, strategy: flower_strategies.Strategy) -> dict[str, type]:
    """The classes of the strategy and of a codec by the names in messages, for those that cannot be imported."""
    return {name_of(type(strategy)): type(strategy), **own_codecs(config)}


def told_of(strategy: flower_strategies.Strategy, loss: Loss, config: Config) -> tuple[str, ...]:
    """What the run must be told of its strategy on this network, one sentence each.

    Tells the strategy which leaves stay with its clients. Raises ConfigError where these are none of the network's, or
    the network has none of the kind that the strategy needs, and for a codec that does not suit the strategy.
    """
    if isinstance(strategy, Strategy):
        strategy.at_home = home_leaves.names_of(strategy, loss)
    check_coding(config, strategy, loss)
    if not isinstance(strategy, Strategy):
        return ()
    return tuple(
        filter(None, (*strategy.network_notes(loss, config.local), home_leaves.note(tuple(strategy.at_home), loss)))
    )


def make_grid(
    config: Config, app: LearnerApp, clients: int, workers: Executor, strategy: flower_strategies.Strategy
) -> SimulationGrid:
    """The grid of a simulation: ``clients`` virtual clients, whose blocks run on ``workers``."""
    never = {k: getattr(config, k) for k in NEVER_TRAIN}
    grid = SimulationGrid(app, clients, **never, block_size=config.block_size, executor=workers, seed=config.seed)
    grid.max_examples = config.system.max_examples
    grid.sent = sent_models(config, strategy, app.learner.loss, clients)
    grid.attackers = attackers(config, app.learner.loss.task)
    return grid


def of_config(config: Config, task: Task, dtype: torch.dtype) -> Network:
    """The run's network, checked, with the engine that takes it."""
    chosen, kinds = config.model, {"ray": config.ray.engine, "flower": "loop"}
    engine = "loop" if config.silo.processes else kinds.get(config.engine, config.engine)
    where = (dtype, config.device, config.precision)
    return network(chosen.component, chosen.params, task, config.seed, chosen.name, engine, *where)


def with_metrics(task: Task, metrics: Mapping[str, SampleFunction], names: str, own: Mapping[str, object]) -> Task:
    """The task with the user's ``metrics``, and the set metrics that the config names (``names``) or the user brings.

    Raises ConfigError for one that is unknown, and for names of columns that exist already.
    """
    check_functions(None, metrics)
    try:
        check_functions(task.loss, task.metrics)
    except ConfigError as error:
        raise ConfigError(f"task.name = {task.name!r}: {error}") from error
    check_own(metrics)
    task = replace(task, metrics={**task.metrics, **metrics})
    columns = [column for name in task.metrics if name != "accuracy" for column in columns_of(name)]
    for table in ("rounds", "clients"):
        check_own(columns, table)
    return replace(task, set_metrics=chosen_metrics(names, own, task))


def make_strategy(config: Config, training_clients: int) -> flower_strategies.Strategy:
    """The strategy, with the numbers of the run's config.

    A strategy that is not this project's gets ``cohort`` as its share of clients that train, if it has a parameter for
    it. Raises ConfigError for settings that only this project's strategies know.
    """
    chosen, component = config.strategy, config.strategy.component
    with (
        making("strategy.name", chosen.name),
        library_lines.collected(),
    ):  # Flower warns of fraction_evaluate = 0, which is set here
        if chosen.is_object:
            strategy: object = copy.deepcopy(component)
        elif inspect.isclass(component) and issubclass(component, Strategy):
            strategy = component(**chosen.params)
        else:
            strategy = component(**shared(config, training_clients, asked_clients(config, training_clients)))
    if isinstance(strategy, Strategy):
        strategy.cohort, strategy.seed = asked_clients(config, training_clients), config.seed
        strategy.server_lr, strategy.weighting = config.server.lr, config.weighting or strategy.weighting
        if isinstance(strategy, AsynchronousStrategy):
            strategy.concurrency = config.concurrency or training_clients
        return strategy
    if not isinstance(strategy, flower_strategies.Strategy):
        kind = type(strategy).__name__
        raise ConfigError(f"strategy.name = {chosen.name!r}: makes a {kind}; it must be a Flower Strategy")
    if mu := getattr(strategy, "proximal_mu", 0):
        what = f"{chosen.name} only asks clients for a proximal term, which plain clients do not have"
        raise ConfigError(f"strategy.proximal_mu = {mu!r}: {what}; use --strategy fedprox --strategy.mu")
    adapt(strategy, chosen.name)
    takes_share = not chosen.is_object and "fraction_train" in inspect.signature(component).parameters
    settings = {
        "system.stragglers": config.system.stragglers,
        "server.lr": config.server.lr != 1 and config.server.lr,
        "weighting": config.weighting,
        "cohort": 0 if takes_share else config.cohort,
    }
    for key, value in settings.items():
        if value:
            why = f"strategy {chosen.name} is not one of this project's and decides that itself"
            raise ConfigError(f"{key} = {value!r}: {why}; leave it out")
    return Personalised(strategy, config.seed) if config.personalize_steps else strategy


def messages(config: Config) -> tuple[ConfigRecord, ConfigRecord]:
    """The settings that messages carry, by dotted name: those for training, and those for personal evaluation."""
    refused = refused_by([config.strategy])  # such as local.lr by maml: what the strategy does not use is not sent
    train = {
        "local": {k: v for k, v in vars(config.local).items() if f"local.{k}" not in refused},
        "rounds": config.schedule_rounds or config.rounds,
        "seed": config.seed,
        "system": {"stragglers": config.system.stragglers},
    }
    personalize: dict[str, str | float] = {
        "steps": config.personalize_steps,
        "lr": config.personalize_lr or config.local.lr,
        "batch_size": config.personalize_batch_size or config.local.batch_size,
        "last_batch": config.local.last_batch,
        "optimizer": config.personalize_optimizer,
        "clients": config.personalize_clients,
        "every": config.personalize_every,
    }
    if not config.partition.params.get("held_out") and config.partition.params.get("unseen_held_out"):
        personalize["seen"] = False  # clients that train have no samples of their own to evaluate on
    if config.personalize_queries == "alone":
        personalize["queries"] = "alone"
    personal = {"personalize": personalize, "rounds": config.rounds, "seed": config.seed}
    coding = codec_settings(config)
    return records.config({**flatten(train), **coding}), records.config(flatten(personal))


def make_executor(config: Config, learner: Learner, engine: str) -> Executor:
    """The executor that runs blocks: in this process, or in Ray's workers, which start with the first block."""
    if config.engine != "ray" and config.client_timeout:
        if torch.cuda.is_available():
            why = "processes of this machine's GPU, which PyTorch's threads serve, cannot be forked"
            cure = "hide it (CUDA_VISIBLE_DEVICES=), use --engine ray, or leave it out"
            raise ConfigError(f"client_timeout = {config.client_timeout:g}: {why}; {cure}")
        return Watched(learner, engine, config.chunk, config.client_timeout)
    if config.engine != "ray":
        return Inline(learner, engine, config.chunk)
    from fl_sim.executors.ray.executor import RayExecutor  # imported here, because all else works without Ray

    return RayExecutor(learner, engine, config.chunk, config.ray, config.threads, config.client_timeout)
