"""A round's memory grows with the blocks in flight, not with the cohort: seen in processes of their own."""

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
from fl_sim import SimulationGrid, from_arrays, records, run_rounds
from fl_sim.learning.loss import Loss
from strategies.fedavg import FedAvg

cohort, engine = int(sys.argv[1]), sys.argv[2]
x, y = np.zeros((50, 3, 32, 32), np.uint8), np.arange(50) % 10
task = from_arrays(x, y, x_test=x[:1], y_test=y[:1], outputs=10)
loss = Loss(lenet((3, 32, 32), 10), task)
grid = SimulationGrid(make_app(loss, resample(task, 100_000, 0, samples_per_client=2)), 100_000, engine=engine, block_size=16)
strategy = FedAvg()
strategy.cohort = cohort
settings = records.config({"local.steps": 1, "local.lr": 0.01})
result = run_rounds(strategy, grid, records.encode(loss.initial()), 1, train_config=settings)
assert result.rows[-1]["completed"] == cohort
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
MODEL_MB = 62_006 * 4 / 2**20


def peak_mb(cohort: int, engine: str) -> float:
    made = subprocess.run(
        [sys.executable, "-c", CHILD, str(cohort), engine], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return float(made.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_cohort_of_2000_takes_hardly_more_than_one_of_100(engine: str) -> None:
    """Wanted: 10 000 clients of LeNet (62 006 parameters) within 300 MB of 100, which is 30 KB a client: 60 MB for 1900 of them.

    One model kept for each would be 449 MB.
    """
    small, large = peak_mb(100, engine), peak_mb(2000, engine)
    assert large - small < 60 < 1900 * MODEL_MB / 7, f"{small:.0f} MB for 100 clients, {large:.0f} MB for 2000"
