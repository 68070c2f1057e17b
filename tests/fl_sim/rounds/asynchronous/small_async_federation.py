"""A federation of eight clients with a linear network in float64, run asynchronously; and the naive loop, its oracle.

The oracle trains each client at its own event, in plain PyTorch, one after another.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.app import make_app
from clients.profiles.halfnormal import halfnormal
from fl_sim import Local, Partition, SimulationGrid, from_arrays, rng
from fl_sim.executors.base import Executor
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.grids.virtual_time.event_clock import EventClock
from fl_sim.grids.virtual_time.timed_round import work_of_clients
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.population.devices import Devices
from fl_sim.rounds.asynchronous import run_async
from fl_sim.rounds.callbacks import RunResult
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.fedavg import FedAvg

CLIENTS, SAMPLES = 8, 42
SETTINGS = {"local.lr": 0.2, "local.batch_size": 3, "local.epochs": 2, "seed": 5, "strategy": "fedavg"}
LOCAL = Local(lr=0.2, batch_size=3, epochs=2)
DEVICES = Devices(halfnormal(), per="launch")


def federation() -> tuple[Loss, Partition]:
    """The loss in float64, and who owns which sample: clients 0 and 1 have 6, the others 5."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(SAMPLES, 3)), draw.integers(0, 2, SAMPLES)
    with rng.keyed_globals(0):
        network = nn.Linear(3, 2)
    loss = Loss(network, from_arrays(x, y, x_test=x[:7], y_test=y[:7]), torch.float64)
    return loss, Partition.of(np.array_split(np.arange(SAMPLES), CLIENTS))


def grid_of(strategy: Any, engine: str = "loop", devices: Devices = DEVICES, block_size: int = 3) -> SimulationGrid:
    """The virtual clients of the federation."""
    loss, partition = federation()
    app = make_app(loss, partition, {name_of(type(strategy)): type(strategy)})
    grid = SimulationGrid(app, CLIENTS, block_size=block_size, engine=engine)
    grid.time = VirtualTime(devices)
    return grid


def run(
    strategy: Any,
    steps: int,
    concurrency: int,
    engine: str = "loop",
    devices: Devices = DEVICES,
    settings: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    **driver: Any,
) -> RunResult:
    """``steps`` server steps."""
    grid = grid_of(strategy, engine, devices)
    grid.executor = executor or grid.executor
    strategy.seed = 5
    start, config = records.encode(federation()[0].initial()), {"rounds": steps, **SETTINGS, **(settings or {})}
    config = records.config(config)
    return run_async(strategy, grid, start, steps, train_config=config, concurrency=concurrency, seed=5, **driver)


def model_of(result: RunResult) -> Tree:
    """The final model."""
    return records.decode(result.arrays)


def trained(model: Mapping[str, Tensor], client: int, key: int, lr: float, rho: float = 0.0) -> Tree:
    """Local training of one client in plain PyTorch; ``key`` stands for the round in the key of its draws."""
    loss, partition = federation()
    layer = nn.Linear(3, 2, dtype=torch.float64)
    layer.load_state_dict(dict(model))
    start = {k: v.detach().clone() for k, v in layer.named_parameters()}
    owned = partition.client(client)
    for batch in FedAvg().streams(Sizes(len(owned), 0), LOCAL, Draw(5, key, client))["train"]:
        rows = torch.from_numpy(owned[batch])
        x, y = loss.task.train["x"][rows].double(), loss.task.train["y"][rows]
        layer.zero_grad()
        nn.functional.cross_entropy(layer(x), y).backward()
        with torch.no_grad():
            for name, p in layer.named_parameters():
                assert p.grad is not None
                p.add_(p.grad + rho * (p - start[name]) if rho else p.grad, alpha=-lr)
    return {k: v.detach().clone() for k, v in layer.state_dict().items()}


Step = Callable[[Tree, list[tuple[Tree, Tree, int]]], Tree]
"""``(model, [(start model, trained model, staleness), ...]) -> new model``."""


def naive(
    steps: int,
    concurrency: int,
    replies: int,
    step: Step,
    devices: Devices = DEVICES,
    lr: Callable[[int], float] = lambda version: 0.2,
    rho: float = 0.0,
) -> tuple[Tree, list[list[int]]]:
    """(the final model, the staleness of each step's replies); who starts is drawn by the clock, which has own tests.

    ``lr``: the learning rate of a client that starts from a version of the model.
    """
    loss, _ = federation()
    model, version = loss.initial(), 0
    learner = make_app(*federation(), {"fedavg": FedAvg}).learner
    clock = EventClock(devices, range(CLIENTS), work_of_clients(learner, SETTINGS, 64, 64), 5)
    heap: list[tuple[int, int, Tree, Tree, int]] = []
    launches: dict[tuple[int, int], int] = {}
    buffer: list[tuple[Tree, Tree, int]] = []
    late: list[list[int]] = []

    def start(count: int) -> None:
        for flight in clock.start(count):
            again = launches[version, flight.client] = launches.get((version, flight.client), -1) + 1
            key = version + 1 + 2**32 * again
            new = trained(model, flight.client, key, lr(version), rho)
            heapq.heappush(heap, (flight.end, flight.client, dict(model), new, version))

    start(concurrency)
    while version < steps:
        now = heap[0][0]
        assert next(iter(clock.next())).client == heap[0][1] and clock.now == now
        while heap and heap[0][0] == now and version < steps:
            _, _, begin, new, born = heapq.heappop(heap)
            buffer.append((begin, new, version - born))
            if len(buffer) == replies:
                model, version, late, buffer = step(model, buffer), version + 1, [*late, [b[2] for b in buffer]], []
        start(concurrency - len(heap))
    return model, late
