"""``python -m experiments.bench.asynchronous``: S5, asynchronous training in waves against one client after another.

Logistic regression on random arrays of MNIST's shape: 1000 clients with 60 samples each, batches of 10, half-normal
durations by launch, 100 in flight. Processor time a client update of FedBuff (K = 10) and FedAsync, with vmap and on
the loop, by turns; and of the clock alone at several numbers of registered clients. S6: milliseconds a client update
of a CNN on the loop, FedBuff and FedAvg by turns.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.app import make_app
from clients.profiles.halfnormal import halfnormal
from experiments.bench.asynchronous.cnn_overhead import cnn_update_ms
from experiments.bench.asynchronous.trained_updates import Updates
from fl_sim import Partition, RoundLog, SimulationGrid, from_arrays, rng
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.grids.virtual_time.event_clock import EventClock
from fl_sim.learning.loss import Loss
from fl_sim.population.devices import Devices, Work
from fl_sim.rounds.asynchronous import run_async
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.fedasync import FedAsync
from strategies.fedbuff import FedBuff

CLIENTS, SAMPLES, FLIGHT = 1000, 60, 100
REGISTERED = (1000, 100_000, 1_000_000)
"""Numbers of clients between which the clock chooses."""
STEPS = 4
"""Rounds, or server steps, of S6, each of ten clients."""
STRATEGIES = {"fedbuff": (FedBuff, 10), "fedasync": (FedAsync, 1)}
"""Name -> class, replies a step."""


def clock_us(registered: int, completions: int) -> float:
    """Microseconds of processor time a completion."""

    def work(clients: np.ndarray) -> Work:
        ones = np.ones(len(clients), np.int64)
        return Work(clients, 6 * ones, 60 * ones, 0 * ones, 0 * ones)

    clock = EventClock(Devices(halfnormal(), per="launch"), range(registered), work, 0)
    clock.start(FLIGHT)
    start, done = time.process_time(), 0
    while done < completions:
        done += len(clock.next())
        clock.start(FLIGHT - len(clock.in_flight))
    return (time.process_time() - start) / done * 1e6


def update_us(name: str, engine: str, updates: int) -> float:
    """Microseconds of processor time a client update, with all that a run does but central evaluation."""
    draw, (cls, replies) = rng.generator(rng.key(0, "bench-asynchronous")), STRATEGIES[name]
    x, y = draw.random((CLIENTS * SAMPLES, 784), dtype=np.float32), draw.integers(0, 10, CLIENTS * SAMPLES)
    with rng.keyed_globals(0):
        network = nn.Linear(784, 10)
    loss = Loss(network, from_arrays(x, y, x_test=x[:1], y_test=y[:1]), torch.float32)
    app = make_app(loss, Partition.of(np.split(np.arange(len(y)), CLIENTS)), {name_of(cls): cls})
    grid = SimulationGrid(app, CLIENTS, block_size=64 if engine == "vmap" else 16, engine=engine)
    grid.time, counted = VirtualTime(Devices(halfnormal(), per="launch")), Updates()
    config = records.config({"local.lr": 0.03, "local.batch_size": 10})
    model, steps = records.encode(loss.initial()), -(-updates // replies)
    with tempfile.TemporaryDirectory() as folder, RoundLog.create(Path(folder), "s5", "") as log:
        start = time.process_time()
        run_async(cls(), grid, model, steps, train_config=config, concurrency=FLIGHT, log=log, callbacks=[counted])
        return (time.process_time() - start) / counted.trained * 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="experiments.bench.asynchronous", description=__doc__)
    parser.add_argument("--updates", type=int, default=10_000, help="client updates of each run with vmap (10000)")
    parser.add_argument("--goes", type=int, default=3, help="how often each is timed (3)")
    parser.add_argument("--cases", default="clock,S5,S6", help="which are timed (clock,S5,S6)")
    call = parser.parse_args(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    cases, found = call.cases.split(","), dict[str, Any]()
    if unknown := [case for case in cases if case not in ("clock", "S5", "S6")]:
        parser.error(f"--cases {call.cases}: {unknown[0]!r} is none of clock, S5, S6")
    if "clock" in cases:
        found |= {f"clock, {n} registered": clock_us(n, 2 * call.updates) for n in REGISTERED}
    for name in STRATEGIES if "S5" in cases else ():
        times: dict[str, list[float]] = {"vmap": [], "loop": []}
        for _ in range(call.goes):
            for engine, goes in times.items():
                goes.append(update_us(name, engine, call.updates if engine == "vmap" else call.updates // 5))
        ratios = [loop / vmap for loop, vmap in zip(times["loop"], times["vmap"], strict=True)]
        found |= {f"{name}, {engine}": statistics.median(goes) for engine, goes in times.items()}
        found[f"{name}, times faster"] = statistics.median(ratios)
    if "S6" in cases:
        pairs = [(cnn_update_ms(True, STEPS), cnn_update_ms(False, STEPS)) for _ in range(call.goes)]
        found["CNN, fedbuff"] = statistics.median(buffered for buffered, _ in pairs)
        found["CNN, fedavg"] = statistics.median(rounds for _, rounds in pairs)
        found["CNN, fedbuff over fedavg"] = statistics.median(buffered / rounds for buffered, rounds in pairs)
    print(json.dumps({k: round(v, 2) for k, v in found.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
