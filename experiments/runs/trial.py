"""Before a run: train one client once, predict memory and seconds a round, choose how many workers. No paper.

What is chosen here never changes a result: engine, block size, inner chunk, threads and dtype follow from the config and
the kind of device. Explicit flags win.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.runs.setup import Setup
from fl_sim import tree
from fl_sim.blocks.plan import BlockPlan, plan_blocks
from fl_sim.engines.run_block import run_plan
from fl_sim.kernels.precision import prepare
from fl_sim.wire import records
from strategies.base import Strategy

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
    learner, config = setup.learner, setup.config
    cohort = config.cohort or len(setup.partition) - config.holdout_clients
    own = setup.strategy.round_settings if isinstance(setup.strategy, Strategy) else None
    settings = {**setup.train_config, **(own(1, setup.train_config) if own else {}), "server-round": 1}
    return plan_blocks(learner, "train", ((c, c, settings) for c in range(cohort)), {}, config.block_size)


def trial(setup: Setup, plans: list[BlockPlan]) -> Trial:
    """Train the client with the most steps once (on vmap its whole block), at most STEPS steps, after one step to warm up."""
    learner, engine = setup.learner, setup.engine.name
    model = tree.to(records.decode(setup.initial), learner.loss.dtype, learner.loss.device)
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
