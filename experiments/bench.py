"""``python -m experiments.bench``: the cost of the loop engine against a bare PyTorch loop of the same clients. No paper.

The workload is NUMBERS S1's round: a CNN of 1 626 442 parameters, 50 clients x 50 images, batches of 10, one epoch,
SGD 0.1. Both run in this process with one thread, interleaved, on the same images; the ratio is taken pair by pair.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.app import make_app
from clients.models.cnn import cnn
from fl_sim import Loss, Partition, SimulationGrid, Task, from_arrays, records, rng
from fl_sim.rounds import run_rounds
from strategies.fedavg import FedAvg

BATCH, IMAGES, LR = 10, 50, 0.1


def workload(clients: int) -> tuple[Task, Partition, nn.Module]:
    """Random images of CIFAR-10's shape: arithmetic does not depend on what they show."""
    draws = rng.generator(rng.key(0, "bench"))
    x = draws.integers(0, 256, (clients * IMAGES, 3, 32, 32), dtype=np.uint8)
    y = draws.integers(0, 10, clients * IMAGES)
    task = from_arrays(x, y, x_test=x[:10], y_test=y[:10], outputs=10)
    with rng.keyed_globals(0):
        module = cnn(task.inputs, task.outputs)
    return task, Partition.of(np.split(np.arange(clients * IMAGES), clients)), module


def bare(task: Task, module: nn.Module, clients: int) -> float:
    """Seconds of one round as one would write it by hand: deepcopy, torch.optim, state dicts averaged as they come."""
    start = time.perf_counter()
    total: dict[str, torch.Tensor] = {}
    for client in range(clients):
        net = copy.deepcopy(module).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        order = torch.from_numpy(rng.permutation(client, IMAGES)) + IMAGES * client
        for rows in torch.split(order, BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(net(task.train["x"][rows].float() / 255), task.train["y"][rows]))
            optimizer.step()
        weights = net.state_dict()
        total = {k: v.clone() for k, v in weights.items()} if not total else {k: total[k].add_(v) for k, v in weights.items()}
    module.load_state_dict({k: v / clients for k, v in total.items()})
    return time.perf_counter() - start


def ours(task: Task, partition: Partition, module: nn.Module, clients: int, engine: str) -> float:
    """Seconds of one whole round of ours: messages, blocks, checks, pooling, server step; no evaluation."""
    loss = Loss(module, task)
    grid = SimulationGrid(make_app(loss, partition), clients, engine=engine)
    config = records.config({"local.epochs": 1, "local.batch_size": BATCH, "local.lr": LR, "rounds": 1})
    initial = records.arrays(loss.initial())
    start = time.perf_counter()
    run_rounds(FedAvg(), grid, initial, 1, train_config=config)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("--clients", type=int, default=50, help="clients of the round")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of rounds, after one to warm up")
    parser.add_argument("--engine", choices=["loop", "vmap"], default="loop")
    parser.add_argument("--json", action="store_true", help="the result as one line of JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    task, partition, module = workload(options.clients)
    count = options.clients
    pairs = [
        (ours(task, partition, module, count, options.engine), bare(task, copy.deepcopy(module), count)) for _ in range(options.repeats + 1)
    ][1:]
    ratios = [a / b for a, b in pairs]
    figures = {
        "engine": options.engine,
        "clients": count,
        "ours_s": statistics.median(a for a, _ in pairs),
        "bare_s": statistics.median(b for _, b in pairs),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(
        json.dumps(figures)
        if options.json
        else "\n".join(f"{k:14} {round(v, 4) if isinstance(v, float) else v}" for k, v in figures.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
