"""``python -m experiments.bench.gpu.pfl_on_gpu DEVICE ROUNDS``: times pfl-research on S1 in one process on a device.

F. Granqvist et al., arXiv:2404.06430. All samples lie on the device. pfl uses a GPU by itself if there is one.
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

from experiments.bench.systems.pfl import AfterRound, PflModule, run_fedavg
from experiments.bench.workloads.catalogue import WORKS
from experiments.bench.workloads.prepare import prepare
from experiments.bench.workloads.shared_inputs import SharedInputs


class DeviceInputs(SharedInputs):
    """Inputs whose samples lie on the device, already transformed."""

    device: torch.device

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor]:
        """Model inputs and labels of all samples."""
        return self.model_inputs(self.x).to(self.device), self.y.to(self.device)

    def client(self, c: int) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) and labels (n,) of client ``c``."""
        rows = self.rows(c).to(self.device)
        return self.samples[0][rows], self.samples[1][rows]


def main() -> int:
    """Run the command; prints one line of JSON."""
    device, rounds = torch.device(sys.argv[1]), int(sys.argv[2])
    [work] = [work for work in WORKS if work.name == "S1"]
    with tempfile.TemporaryDirectory() as folder:
        prepare(work, Path(folder), rounds)
        inputs = DeviceInputs({"folder": folder, "work": work.to_dict()})
        inputs.device = device
        _ = inputs.samples
        module, times = PflModule(inputs.initial_module()).to(device), [time.perf_counter()]

        def on_round(number: int) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())

        run_fedavg(inputs, module, rounds, AfterRound(on_round))
        seconds = [b - a for a, b in itertools.pairwise(times)]
        accuracy = inputs.accuracy(module.net.cpu())
    print(json.dumps({"seconds_round": statistics.median(seconds[2:]), "rounds": rounds, "accuracy": accuracy}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
