"""A silo one of whose ranks is slowed by half: equal shares, and shards that move (``silo.balance``), beside the ideal.

The time of a sample is a pause, so that the ranks do not compete for cores, and the ideal is known: all ranks are done
at once.
"""

import time
from dataclasses import replace
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import nn

from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import Silo
from experiments.runs.plan import first_round_plans, sent
from experiments.runs.setup import Setup
from fl_sim.engines.run_block import run_plan

SAMPLE_S = 0.012
"""Seconds of a sample; the last rank takes twice as many. A step's fixed cost (6 ms) is to be small beside it."""


class Slowed(nn.Module):
    """A linear model for pictures that takes SAMPLE_S a sample; the last rank takes twice as long."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores (n, 10) of the classes, later."""
        last = dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1
        if self.training:
            time.sleep(len(x) * SAMPLE_S * (1 + last))
        scores: torch.Tensor = self.layers(x)
        return scores


def balance(setup: Setup, silo: Silo, batch: int, steps: int, turns: int) -> str:
    """Milliseconds a step with equal shares, with shards that move, and of the ideal, as a table in Markdown."""
    [plan], rows = first_round_plans(setup), list[str]()
    ideal = batch / (silo.processes - 1 + 0.5) * SAMPLE_S * 1e3
    for name, each in {"equal": silo, "balance": replace(silo, balance=True)}.items():
        learner, times = in_silo(setup.learner, each), list[float]()
        assert learner.silo is not None
        try:
            for _ in range(turns + 1):
                start = time.perf_counter()
                run_plan(plan, sent(setup), learner, "loop", 0, None)
                times.append((time.perf_counter() - start) / steps * 1e3)
            shares = vars(learner.silo)["edges"]
        finally:
            learner.silo.close()
        counts = ", ".join(str(b - a) for a, b in pairwise(shares))
        rows.append(f"| {name} | {counts} | {min(times[1:]):.1f} | {min(times[1:]) / ideal:.2f} |")
    head = ["| shares | shards of each rank | ms a step | of the ideal |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, f"| ideal | | {ideal:.1f} | 1 |"])
