"""A federation of a few vectors in two classes, with a BatchNorm network, for tests of whole rounds.

With a learning rate of 0 the weights stay, so that a client's running statistics follow from its batches alone: plain
PyTorch computes them here, batch by batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.app import make_app
from fl_sim import Local, Partition, RoundLog, SimulationGrid, from_arrays, rng, run_rounds
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.rounds.callbacks import RunResult
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.fedavg import FedAvg

SIZES = [4, 9]
STILL = {"local.lr": 0.0, "local.batch_size": 4, "local.last_batch": "join"}
"""The first client takes one step, the second two, of 4 and 5 samples."""
STATISTICS = ("1.running_mean", "1.running_var", "1.num_batches_tracked")


def network(norm: nn.Module | None = None) -> nn.Module:
    """Two linear layers with a normalisation between them, with keyed weights."""
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 4), norm or nn.BatchNorm1d(4), nn.Linear(4, 2))


def normed(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """A small network with BatchNorm for a task's shapes, which devices find by its name."""
    size = int(np.prod(inputs))
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))


def grouped(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """The same with GroupNorm, over all features."""
    size = int(np.prod(inputs))
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.GroupNorm(1, 8), nn.Linear(8, outputs))


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


def own_statistics(client: int, module: nn.Module | None = None) -> Tree:
    """The statistics of a client of SIZES after round 1 with the settings STILL, by plain PyTorch."""
    module = (module or network()).double().train()
    loss, partition = federation(SIZES, module)
    local = Local(batch_size=4, last_batch="join")
    for batch in FedAvg().streams(Sizes(SIZES[client], 0), local, Draw(0, 1, client))["train"]:
        module(loss.task.train["x"][partition.client(client)[batch]].double())
    return {k: v.detach() for k, v in module.named_buffers()}


def mean_statistics(weights: tuple[int, int], module: Callable[[], nn.Module] = network) -> Tree:
    """The weighted mean of both clients' statistics, counters to whole numbers: with 4 and 9, 22 / 13 is 2."""
    first, second = own_statistics(0, module()), own_statistics(1, module())
    means = {k: (weights[0] * first[k] + weights[1] * second[k]) / sum(weights) for k in first}
    return {k: x if first[k].is_floating_point() else x.round().to(first[k].dtype) for k, x in means.items()}
