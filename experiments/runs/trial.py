"""A short trial before a run: one client (with vmap, one block) trains a few steps; its time and memory are measured.

The measurements choose how many workers are started, which never changes a result: engine, block size, inner chunk,
threads and dtype follow from the config and the kind of device.
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
from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.run_block import run_plan
from fl_sim.kernels.precision import prepare
from fl_sim.wire import records

STEPS = 10
"""Largest number of local steps that a trial takes."""
PROCESS_BYTES = 450e6
"""Memory of a worker process before any training, in bytes: Python, torch and Flower."""
MARGIN = 0.8
"""Share of the free memory that workers may use."""
MEGABYTE = 1e6
"""Number of bytes in a megabyte."""


class ClientFailed(ValueError):
    """The client of the trial raised an error."""


@dataclass(frozen=True)
class Trial:
    """What the trial measured."""

    seconds_per_step: float
    """Seconds of one step: of one client with the loop engine, of a whole block with vmap."""
    activation_bytes: int
    """Bytes that autograd keeps for the backward pass of one step of one client."""
    device_bytes: int
    """Peak of the GPU's memory during the trial without what was held before it, in bytes; 0 on a CPU."""


def trial(setup: Setup, plans: list[BlockPlan]) -> Trial:
    """Train the client with the most steps (with vmap, its block) for at most STEPS steps, after one step to warm up.

    Parameters
    ----------
    setup : Setup
        The run that is about to start; the trial does not change it.
    plans : list of BlockPlan
        Blocks of a round; the first one, which has the clients with the most steps, is tried.

    Raises
    ------
    ClientFailed
        With the client and the last line of its error.
    """
    learner, engine = replace(setup.learner, silo=None), setup.engine.name
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
    wider = widest_batch(setup)
    return Trial(seconds / steps, int(saved[0] * wider), int(peak * wider))


def widest_batch(setup: Setup) -> float:
    """The largest batch of a client that trains, as a multiple of the first one: (B + 1) / B where one is joined."""
    local, clients = setup.config.local, len(setup.partition) - setup.config.never_train
    if local.last_batch != "join" or local.batch_size < 2:
        return 1.0
    sizes = [int(n) for n in setup.partition.size_counts(clients)[:, 0] if n > local.batch_size]
    return (local.batch_size + any(n % local.batch_size == 1 for n in sizes)) / local.batch_size


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Context manager that counts the bytes that autograd keeps for backward passes.

    It yields a list of one number, the most bytes that were kept at one time.
    """
    most, now = [0], [0]

    class CountedTensor:
        def __init__(self, x: Tensor) -> None:
            self.x, self.size = x, x.numel() * x.element_size()
            now[0] += self.size
            most[0] = max(most[0], now[0])

        def __del__(self) -> None:
            now[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(CountedTensor, lambda counted: counted.x):
        yield most


def free_bytes(device: torch.device) -> float:
    """Free memory in bytes: the GPU's, or this machine's for a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
