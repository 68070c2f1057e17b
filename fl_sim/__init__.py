"""The machine: trees, draws, one client's loop, blocks, engines, grid, rounds, logs. Names no algorithm and no data set."""

from fl_sim.callback import Callback, Run
from fl_sim.grid import SimulationGrid
from fl_sim.local import LocalRule
from fl_sim.loss import Batch, Loss
from fl_sim.partition import Partition
from fl_sim.pool import Pool
from fl_sim.pooling import PoolingStrategy
from fl_sim.roundlog import RoundLog, load
from fl_sim.rounds import run_rounds
from fl_sim.settings import Local
from fl_sim.tally import RoundFailed
from fl_sim.task import Task, Transform, from_arrays

__all__ = [
    "Batch",
    "Callback",
    "Local",
    "LocalRule",
    "Loss",
    "Partition",
    "Pool",
    "PoolingStrategy",
    "RoundFailed",
    "RoundLog",
    "Run",
    "SimulationGrid",
    "Task",
    "Transform",
    "from_arrays",
    "load",
    "run_rounds",
]
