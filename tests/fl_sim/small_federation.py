"""A federation of a few vectors in two classes, with a BatchNorm network, for tests of whole rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.app import make_app
from fl_sim import Partition, RoundLog, SimulationGrid, from_arrays, rng, run_rounds
from fl_sim.learning.loss import Loss
from fl_sim.rounds.callbacks import RunResult
from fl_sim.wire import records
from strategies.base.strategy import name_of


def network(norm: nn.Module | None = None) -> nn.Module:
    """Two linear layers with a normalisation between them, with keyed weights."""
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 4), norm or nn.BatchNorm1d(4), nn.Linear(4, 2))


def federation(sizes: Sequence[int], module: nn.Module, held_out: float = 0.0) -> tuple[Loss, Partition]:
    """The loss in float64 on samples of ``sizes`` clients, and who owns which."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(sum(sizes), 3)), draw.integers(0, 2, sum(sizes))
    task = from_arrays(x, y, x_test=x[:7], y_test=y[:7])
    parts = Partition.of(np.split(np.arange(len(y)), np.cumsum(sizes)[:-1])).hold_out(held_out, 0)
    return Loss(module, task, torch.float64), parts


def train(
    strategy: Any,
    sizes: Sequence[int],
    settings: Mapping[str, Any],
    *,
    module: nn.Module | None = None,
    rounds: int = 1,
    engine: str = "loop",
    log: RoundLog | None = None,
    **driver: Any,
) -> RunResult:
    """Train ``rounds`` rounds with ``settings`` of local training, in blocks of two clients."""
    loss, partition = federation(sizes, module or network())
    app = make_app(loss, partition, {name_of(type(strategy)): type(strategy)})
    grid = SimulationGrid(app, len(sizes), block_size=2, engine=engine)
    config = records.config({"rounds": rounds, **settings})
    start = records.encode(loss.initial())
    return run_rounds(strategy, grid, start, rounds, train_config=config, log=log, **driver)
