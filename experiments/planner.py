"""Before a run: train one client once, predict memory and seconds a round, choose how many workers. No paper.

What is chosen here never changes a result: engine, block size, inner chunk, threads and dtype follow from the config and
the kind of device. Explicit flags win.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from experiments.build import Setup
from fl_sim import records, tree
from fl_sim.block import BlockPlan, plan_blocks
from fl_sim.device import prepare
from fl_sim.settings import Ray
from fl_sim.worker import run_plan

STEPS = 10
"""At most so many steps are tried."""
PROCESS_BYTES = 450e6
"""A worker before any work: Python, torch, Flower."""
MARGIN = 0.8
"""Share of the free memory that may be used."""
MEGABYTE = 1e6


class ClientFailed(ValueError):
    """The client that was tried cannot train."""


@dataclass(frozen=True)
class Trial:
    """What one client took."""

    seconds_per_step: float
    """Of one client on the loop, of a block on vmap."""
    activation_bytes: int
    """Kept for the backward pass of one step of one client."""
    device_bytes: int
    """Most that the GPU held for it, the data set apart; 0 on a CPU."""


def first_round(setup: Setup) -> list[BlockPlan]:
    """The blocks of a round like the first: as many clients as it has, the lowest ids."""
    learner, config = setup.grid.learner, setup.config
    assert learner is not None
    cohort = config.cohort or len(setup.partition) - config.holdout_clients
    own = getattr(setup.strategy, "_settings", None)
    settings = {**setup.train_config, **(own(1, setup.train_config) if own else {}), "server-round": 1}
    return plan_blocks(learner, "train", ((c, c, settings) for c in range(cohort)), {}, config.block_size)


def trial(setup: Setup, plans: list[BlockPlan]) -> Trial:
    """Train the client with the most steps once (on vmap its whole block), at most STEPS steps, after one step to warm up."""
    learner, engine = setup.grid.learner, setup.engine.name
    assert learner is not None
    model = tree.to(records.model(setup.initial), learner.loss.dtype, learner.loss.device)
    device, longest = learner.loss.device, max(plans[0].orders[0].steps, 1)

    def train(steps: int, alone: bool = False) -> float:
        orders = [replace(order, work=min(1.0, steps / max(order.steps, 1))) for order in plans[0].orders]
        single = alone or engine == "loop"
        start = time.perf_counter()
        plan = replace(plans[0], orders=orders[:1] if single else orders)
        result = run_plan(plan, model, learner, "loop" if single else engine, setup.config.chunk, setup.grid.pool)
        if reason := result.clients[0].reason:
            raise ClientFailed(f"client {result.clients[0].client}: {reason.strip().splitlines()[-1]}")
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    prepare(setup.config.device, setup.config.threads, setup.config.precision)
    train(1)
    with saved_bytes() as saved:
        train(1, alone=True)
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    steps = min(STEPS, longest)
    seconds = train(steps)
    peak = torch.cuda.max_memory_allocated(device) - held if device.type == "cuda" else 0
    return Trial(seconds / steps, saved[0], int(peak))


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """While open, count the most bytes that autograd keeps for backward passes at one time: ``[bytes]``."""
    most, now = [0], [0]

    class Kept:
        def __init__(self, x: Tensor) -> None:
            self.x, self.size = x, x.numel() * x.element_size()
            now[0] += self.size
            most[0] = max(most[0], now[0])

        def __del__(self) -> None:
            now[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
        yield most


def free_bytes(device: torch.device) -> float:
    """Memory that is free: of the GPU, or of this machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def predict(setup: Setup) -> tuple[dict[str, Any], Ray]:
    """(what a round will take, in a few numbers; Ray's settings with what the user left open filled in). Raises ClientFailed."""
    config, plans = setup.config, first_round(setup)
    learner = setup.grid.learner
    assert learner is not None
    tried = trial(setup, plans)
    device, model = learner.loss.device, tree.num_bytes(learner.loss.initial())
    loop = setup.engine.name == "loop"
    widest = max(len(plan.orders) for plan in plans)
    at_once = 1 if loop else min(config.chunk or widest, widest)
    copies = 3 + bool(config.local.momentum) + 2 * (config.local.optimizer != "sgd")  # weights, gradient, update, moments
    own = max(copies * model + tried.activation_bytes, tried.device_bytes / at_once)
    base = (0.0 if device.type == "cuda" else PROCESS_BYTES) + 4 * model
    need, free = base + at_once * own, free_bytes(device) * MARGIN
    room = max(int((free - base) // own), 0)
    processes = max(int(free // need), 1)
    chosen = fill(config.ray, processes, len(plans), device)
    workers = chosen.num_workers if config.engine == "ray" else 1
    steps = sum(plan.steps if loop else plan.orders[0].steps for plan in plans)
    numbers = {
        "workers": workers,
        "gpu_fraction": chosen.num_gpus if config.engine == "ray" else float(device.type == "cuda"),
        "seconds_per_step": tried.seconds_per_step,
        "seconds_per_round": steps * tried.seconds_per_step / min(workers, len(plans)),
        "seconds_note": f"of training, from {min(STEPS, plans[0].orders[0].steps)} steps tried; evaluation comes on top",
        "worker_mb": round(need / MEGABYTE, 1),
        "free_mb": round(free_bytes(device) / MEGABYTE, 1),
        "fits": need <= free,
        "largest_chunk": min(room, widest),
    }
    return numbers, chosen


def fill(ray: Ray, processes: int, blocks: int, device: torch.device) -> Ray:
    """Ray's settings, with workers and GPU fraction chosen where they are 0: as many as fit in memory and have work."""
    cpus = max(int((os.cpu_count() or 1) / ray.num_cpus), 1)
    if device.type != "cuda":
        return replace(ray, num_workers=ray.num_workers or max(min(cpus, blocks, processes), 1))
    share = ray.num_gpus or 1 / max(min(ray.num_workers or cpus, processes, blocks), 1)
    fraction = ray.num_gpus or math.floor(share * 1000) / 1000
    return replace(ray, num_gpus=fraction, num_workers=ray.num_workers or max(int(1 / fraction), 1) * max(torch.cuda.device_count(), 1))
