"""The machine: trees, draws, one client's loop, blocks, engines, grid, rounds, logs. Names no algorithm and no data set."""

from fl_sim.errors import RoundFailed
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform
from fl_sim.logs.reader import load
from fl_sim.logs.writer import RoundLog
from fl_sim.population.partition import Partition
from fl_sim.rounds.callbacks import Callback, Run
from fl_sim.rounds.driver import run_rounds
from fl_sim.wire.pool import Pool, PoolingStrategy

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
