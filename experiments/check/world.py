"""A small federated data set, model and run for checks of strategies: difficult clients, five of eight train in
each of three rounds, all in float64.

It has what breaks an implementation most often: clients with one or two samples, or with fewer samples than a batch;
stragglers, momentum, weight decay, and dropout or BatchNorm. ``experiments.check.strategy_checks`` checks strategies
with it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower_strategies
from torch import nn

from clients.app import LearnerApp, make_app
from fl_sim import Callback, Partition, Run, SimulationGrid, from_arrays, rng, run_rounds
from fl_sim.blocks.learner import Learner
from fl_sim.engines.results import BlockResult
from fl_sim.executors.base import Executor
from fl_sim.executors.inline import Inline
from fl_sim.learning.loss import Loss
from fl_sim.rounds.callbacks import RunResult
from fl_sim.rounds.central_evaluation import validation_loss
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.base.strategy import Strategy

Make = Callable[[], Any]
"""Builds a new strategy; all checks of a strategy get the same function, so that its plain run is computed once."""
SIZES = [1, 2, 5, 24, 17, 9, 13, 20, 8, 6]
"""Samples of each client; a quarter of them is held out."""
ROUNDS = 3
"""Number of rounds of every run."""
COHORT = 5
"""Clients a round, fewer than there are: some train for the first time beside others that have a state already."""
UNSEEN = 2
"""Number of clients that never train: the last ones."""
TRAINING = {
    "rounds": ROUNDS, "local.epochs": 2, "local.batch_size": 8, "local.lr": 0.05, "local.momentum": 0.9,
    "local.weight_decay": 0.01, "system.stragglers": 0.4,
}  # fmt: skip
"""Settings of training messages."""
PERSONAL = {"rounds": ROUNDS, "personalize.steps": 3, "personalize.lr": 0.1, "personalize.batch_size": 4}
"""Settings of messages for personal evaluation."""


@functools.cache
def world(batch_norm: bool = False) -> tuple[Loss, Partition]:
    """(model and task, partition): vectors of 6 numbers in 3 classes, clients of unequal size.

    The network has LayerNorm, which vmap can run, and dropout or BatchNorm.
    """
    draw = rng.generator(rng.key(0, "contract"))
    x = draw.normal(size=(sum(SIZES), 6))
    y = (x @ draw.normal(size=(6, 3))).argmax(1)
    task = from_arrays(x, y, x_test=x[:20], y_test=y[:20])
    middle = nn.BatchNorm1d(12) if batch_norm else nn.Dropout(0.3)
    with rng.keyed_globals(1):
        normalised = nn.Sequential(nn.LayerNorm(12), nn.ReLU())
        module = nn.Sequential(nn.Linear(6, 12), normalised, middle, nn.Linear(12, 3))
    partition = Partition.of(np.split(np.arange(len(y)), np.cumsum(SIZES)[:-1])).hold_out(0.25, seed=0)
    return Loss(module, task, torch.float64), partition


def app_of(strategy: object, batch_norm: bool = False) -> LearnerApp:
    """The ClientApp for this data; it knows the strategy's client half, which need not be registered."""
    return make_app(*world(batch_norm), {name_of(type(strategy)): type(strategy)})


class Reversed(SimulationGrid):
    """A simulation whose replies arrive in the opposite order."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """All replies, the last one first."""
        return reversed(list(super().send_and_receive(messages, timeout=timeout)))


class Wrapped(flower_strategies.Strategy):
    """A strategy inside another one, as in Flower's wrappers for privacy: replies arrive one by one, not pooled."""

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Passed on to the inner strategy."""
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Passed on to the inner strategy."""
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Passed on to the inner strategy."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Passed on to the inner strategy."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Print nothing."""


class _Notes(Callback):
    """Collects the engine's notes on blocks."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.notes += result.notes


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    model: Tree
    """The final global model."""
    result: RunResult
    notes: Sequence[str]
    """The engine's notes, such as that a block fell back to the loop."""
    states: Mapping[int, Tree]
    """Client -> the state that it ended with."""


def trained(
    strategy: flower_strategies.Strategy,
    engine: str = "loop",
    block_size: int = 4,
    chunk: int = 0,
    grid: type[SimulationGrid] = SimulationGrid,
    personal: bool = False,
    executor: Callable[[Learner, str, int], Executor] = Inline,
) -> Trained:
    """Run three rounds.

    Parameters
    ----------
    strategy : Strategy
        A new strategy, which the run changes.
    engine : str
        ``loop`` or ``vmap``.
    block_size : int
        Most clients in a block.
    chunk : int
        Clients that vmap trains at a time; 0: all of a block.
    grid : type
        The kind of simulation.
    personal : bool
        Whether clients are evaluated after fine-tuning.
    executor : callable
        Builds the executor of blocks from (learner, engine, chunk).
    """
    inner = strategy.inner if isinstance(strategy, Wrapped) else strategy
    if isinstance(inner, Strategy):
        inner.cohort = COHORT
    app = app_of(inner)
    workers = executor(app.learner, engine, chunk)
    if isinstance(inner, Strategy) and inner.needs_validation:
        inner.validate = validation_loss(app.learner.loss, app.learner.loss.task.test, workers)
    simulation = grid(app, len(SIZES), holdout_clients=UNSEEN, block_size=block_size, executor=workers)
    evaluate = records.config(PERSONAL) if personal else None
    notes = _Notes()
    initial = records.encode(world()[0].initial())
    with closing(simulation):
        train = records.config(TRAINING)
        result = run_rounds(
            strategy, simulation, initial, ROUNDS, train_config=train, evaluate_config=evaluate, callbacks=[notes]
        )
    return Trained(records.decode(result.arrays), result, notes.notes, dict(simulation.states))


@functools.lru_cache(maxsize=64)
def plain(make: Make, engine: str = "loop") -> Trained:
    """The run with personal evaluation with which other runs are compared; computed once for each ``make``."""
    return trained(make(), engine, personal=True)
