"""S6: an asynchronous run beside as many client updates in rounds, where training is the work: a CNN, on the loop."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from clients.app import make_app
from clients.models.cnn import cnn
from clients.profiles.halfnormal import halfnormal
from experiments.bench.asynchronous.trained_updates import Updates
from fl_sim import Partition, RoundLog, SimulationGrid, from_arrays, rng, run_rounds
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.learning.loss import Loss
from fl_sim.population.devices import Devices
from fl_sim.rounds.asynchronous import run_async
from fl_sim.wire import records
from strategies.fedavg import FedAvg
from strategies.fedbuff import FedBuff

CLIENTS, SAMPLES, COHORT = 100, 50, 10


def cnn_update_ms(asynchronous: bool, rounds: int) -> float:
    """Milliseconds of processor time a client update of S1's CNN, 10 of them a round or server step."""
    draw = rng.generator(rng.key(0, "bench-asynchronous-cnn"))
    x = draw.random((CLIENTS * SAMPLES, 3, 32, 32), dtype=np.float32)
    y = draw.integers(0, 10, CLIENTS * SAMPLES)
    with rng.keyed_globals(0):
        network = cnn((3, 32, 32), 10)
    loss = Loss(network, from_arrays(x, y, x_test=x[:1], y_test=y[:1]), torch.float32)
    parts = Partition.of(np.split(np.arange(len(y)), CLIENTS))
    strategy = FedBuff(buffer=COHORT) if asynchronous else FedAvg()
    strategy.cohort = 0 if asynchronous else COHORT
    app = make_app(loss, parts, {"fedbuff" if asynchronous else "fedavg": type(strategy)})
    grid = SimulationGrid(app, CLIENTS, block_size=COHORT, engine="loop")
    grid.time = VirtualTime(Devices(halfnormal(), per="launch"))
    config = records.config({"local.lr": 0.03, "local.batch_size": 10})
    model, counted = records.encode(loss.initial()), Updates()
    with tempfile.TemporaryDirectory() as folder, RoundLog.create(Path(folder), "s6", "") as log:
        start = time.process_time()
        if isinstance(strategy, FedBuff):
            run_async(
                strategy, grid, model, rounds, train_config=config, concurrency=COHORT, log=log, callbacks=[counted]
            )
        else:
            run_rounds(strategy, grid, model, rounds, train_config=config, log=log, callbacks=[counted])
        return (time.process_time() - start) / counted.trained * 1e3
