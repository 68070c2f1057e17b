"""A round's memory grows with the blocks in flight, not with the cohort: measured in a process of its own."""

import subprocess
import sys

import pytest

CHILD = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from clients.app import make_app
from clients.models.lenet import lenet
from clients.partitions.resample import resample
from fl_sim import SimulationGrid, from_arrays, run_rounds
from fl_sim.learning.loss import Loss
from fl_sim.wire import records
from strategies.fedavg import FedAvg

x, y = np.zeros((50, 3, 32, 32), np.uint8), np.arange(50) % 10
task = from_arrays(x, y, x_test=x[:1], y_test=y[:1], outputs=10)
loss = Loss(lenet((3, 32, 32), 10), task)
app = make_app(loss, resample(task, 100_000, 0, samples_per_client=2))
grid = SimulationGrid(app, 100_000, engine=sys.argv[1], block_size=16)
strategy = FedAvg()
settings = records.config({"local.steps": 1, "local.lr": 0.01})
for strategy.cohort in (100, 2000):
    result = run_rounds(strategy, grid, records.encode(loss.initial()), 1, train_config=settings)
    assert result.rows[-1]["completed"] == strategy.cohort
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
MODEL_MB = 62_006 * 4 / 2**20


def peaks_mb(engine: str) -> list[float]:
    """The process's peak memory after a round of 100 clients, and after one of 2000."""
    done = subprocess.run([sys.executable, "-c", CHILD, engine], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_cohort_of_2000_takes_hardly_more_than_one_of_100(engine: str) -> None:
    """The target: 10 000 clients of LeNet (62 006 parameters) need at most 300 MB more than 100 clients.

    That is 30 KB for each client, and 60 MB for 1900 of them. One model kept for each would be 449 MB.
    """
    small, large = peaks_mb(engine)
    assert large - small < 60 < 1900 * MODEL_MB / 7, f"{small:.0f} MB for 100 clients, {large:.0f} MB for 2000"
