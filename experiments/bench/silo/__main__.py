"""Seconds of a client's steps in a silo, beside one process and DistributedDataParallel, in turn.

    python -m experiments.bench.silo [--model cnn] [--batch 64] [--steps 20] [--turns 5] [--processes 2] [--shards 4]
    python -m experiments.bench.silo --balance --shards 8        # one rank slowed by half

Pictures are noise of CIFAR-10's shape. Each system takes the same number of steps of SGD, one thread a process:

    plain        a PyTorch loop in one process
    one          a silo of one process (--silo.processes 1)
    ordered      a silo of several processes; sockets: the same without shared memory; library: with all_reduce
    ceiling      the same processes, each with its own shards, and no sums between them: no silo here is faster
    ddp          torch.nn.parallel.DistributedDataParallel in a PyTorch loop on as many processes

They take turns. The first turn, in which the silos' processes start, is not counted; those of ceiling and ddp start
anew in each turn, and take a pass that is not counted. Times are medians, and the least of all turns, which other work
on the machine disturbs less. A silo's time includes that of sending model and samples to the ranks, and the reply.
Beside seconds stand those of a processor, of the process that took most: where they are fewer, it waited for the
others, or other work had the cores.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import Silo
from experiments.bench.ranks import on_ranks
from experiments.bench.silo.ceiling import ceiling
from experiments.bench.silo.slowed_rank import Slowed, balance
from experiments.config.recipe_files import make
from experiments.runs.plan import first_round_plans, sent
from experiments.runs.resume import ready
from experiments.runs.setup import Setup
from fl_sim import from_arrays, rng
from fl_sim.blocks.client_silo import ClientSilo
from fl_sim.engines.run_block import run_plan

RATE = 0.01
Times = tuple[float, float]
"""Seconds, and seconds of a processor."""


def world(model: str | nn.Module, batch: int, steps: int) -> Setup:
    """One client with as many samples as its steps take, in one pass."""
    x, y = rng.uniform(rng.words(0), (batch * steps, 3, 32, 32)), torch.arange(batch * steps) % 10
    task = from_arrays(x, y, x_test=x[:10], y_test=y[:10], name="noise")
    local: dict[str, Any] = {"local.batch_size": batch, "local.epochs": 1, "local.lr": RATE}
    return ready(make(task=task, model=model, clients=1, rounds=1, engine="loop", **local))


def steps_of(module: nn.Module, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """A pass of plain SGD."""
    rule = torch.optim.SGD(module.parameters(), RATE)
    for x, y in batches:
        rule.zero_grad()
        torch.autograd.backward(cross_entropy(module(x), y))
        rule.step()


def parts(setup: Setup, batch: int, rank: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one of ``size`` ranks: its contiguous part of each."""
    train, own = setup.learner.loss.task.train, batch // size
    begins = range(rank * own, len(train["y"]), batch)
    return [(train["x"][a : a + own], train["y"][a : a + own]) for a in begins]


def ddp(setup: Setup, batch: int, turns: int) -> list[Times]:
    """The times of each turn of DistributedDataParallel, on this rank."""
    module = nn.parallel.DistributedDataParallel(setup.loss.training)
    batches, times = parts(setup, batch, dist.get_rank(), dist.get_world_size()), []
    for _ in range(turns + 1):
        dist.barrier()
        start, processor = time.perf_counter(), time.process_time()
        steps_of(module, batches)
        processor = time.process_time() - processor
        dist.barrier()
        times.append((time.perf_counter() - start, processor))
    return times[1:]  # the first one also starts what each process starts once


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.silo", description=__doc__)
    parser.add_argument("--model", default="cnn")
    for name, value in (("batch", 64), ("steps", 20), ("turns", 5), ("processes", 2), ("shards", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--balance", action="store_true", help="one rank slowed by half: equal shares, and moved ones")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    several = Silo(given.processes, given.shards)
    if given.balance:
        print(balance(world(Slowed(), given.batch, given.steps), several, given.batch, given.steps, given.turns))
        return 0
    setup = world(given.model, given.batch, given.steps)
    [plan] = first_round_plans(setup)
    silos = {"one": Silo(1, given.shards), "ordered": several, "library": replace(several, reduce="library")}
    silos["sockets"] = replace(several, wire="sockets")
    learners = {name: in_silo(setup.learner, silo) for name, silo in silos.items()}
    whole = parts(setup, given.batch, 0, 1)
    systems: dict[str, Callable[[], Any]] = {"plain": lambda: steps_of(setup.loss.training, whole)}
    for name, learner in learners.items():
        systems[name] = partial(run_plan, plan, sent(setup), learner, "loop", 0, None)
    times: dict[str, list[Times]] = {name: [] for name in (*systems, "ceiling", "ddp")}
    try:
        for turn in range(given.turns + 1):
            for name, work in systems.items():
                silo = learners[name].silo if name in learners else None
                start, before = time.perf_counter(), processor_seconds(silo)
                work()
                if turn:
                    spent = [b - a for a, b in zip(before, processor_seconds(silo), strict=True)]
                    times[name].append((time.perf_counter() - start, max(spent)))
            if turn:
                times["ceiling"] += on_ranks(given.processes, ceiling, setup, several, 1)
                times["ddp"] += on_ranks(given.processes, ddp, setup, given.batch, 1)
    finally:
        for learner in learners.values():
            if learner.silo is not None:
                learner.silo.close()
    print(show(times, given.steps))
    return 0


def processor_seconds(silo: ClientSilo | None) -> list[float]:
    """The processor's seconds of this process so far, or of each rank of a silo that has started them."""
    group = vars(silo).get("_group") if silo is not None else None
    if group is None:
        return [time.process_time()]
    return [sum(psutil.Process(rank.pid).cpu_times()[:2]) for rank in group.ranks]


def show(times: dict[str, list[Times]], steps: int) -> str:
    """Milliseconds a step of each system, and how many times as fast as ``one`` it is, as a table in Markdown."""
    found = {
        n: [(statistics.median(x) / steps * 1e3, min(x) / steps * 1e3) for x in zip(*v, strict=True)]
        for n, v in times.items()
    }
    one, rows = found["one"][0], list[str]()
    for name, (seconds, processor) in found.items():
        ratios = " | ".join(f"{mine:.1f} ({first / mine:.2f})" for first, mine in zip(one, seconds, strict=True))
        rows.append(f"| {name} | {ratios} | {processor[0]:.1f} | {processor[1]:.1f} |")
    told = "system | ms a step (times as fast as one) | least | of a processor | least"
    head = [f"| {told} |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


if __name__ == "__main__":
    sys.exit(main())
