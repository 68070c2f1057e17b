"""pfl-research on S1 in one process on a device, its samples there: ``python -m experiments.bench.gpu.pfl_on_gpu DEVICE ROUNDS``. No paper.

F. Granqvist et al., arXiv:2404.06430. pfl takes the GPU by itself, where there is one.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from experiments.bench.systems.pfl import After, Learner, algorithm
from experiments.bench.workloads.catalogue import WORKS
from experiments.bench.workloads.prepare import prepare
from experiments.bench.workloads.shared_inputs import World


class Placed(World):
    """A world whose samples lie on the device, transformed."""

    device: torch.device

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of all clients."""
        return self.floats(self.x).to(self.device), self.y.to(self.device)

    def client(self, c: int) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) and labels (n,) of client c."""
        rows = self.rows(c).to(self.device)
        return self.samples[0][rows], self.samples[1][rows]


def main() -> int:
    """The command."""
    device, rounds = torch.device(sys.argv[1]), int(sys.argv[2])
    [work] = [work for work in WORKS if work.name == "S1"]
    with tempfile.TemporaryDirectory() as folder:
        prepare(work, Path(folder), rounds)
        world = Placed({"folder": folder, "work": work.to_dict()})
        world.device = device
        _ = world.samples
        learner, times = Learner(world.module()).to(device), [time.perf_counter()]

        def then(number: int) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())

        algorithm(world, learner, rounds, After(then))
        seconds = [b - a for a, b in itertools.pairwise(times)]
        accuracy = world.accuracy(learner.net.cpu())
    print(json.dumps({"seconds_round": statistics.median(seconds[2:]), "rounds": rounds, "accuracy": accuracy}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
