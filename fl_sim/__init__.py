"""The simulator's core: models as trees, random draws, one client's training, blocks, engines, grids, rounds, logs.

It names no algorithm and no data set. The names in ``__all__`` are public, and a test pins them.

The folders are floors of a stair, and each imports only from the floors after it: rounds, grids, executors, engines,
blocks, learning; then population, kernels, wire and logs; then the files tree, rng, dotted, errors and registry.
"""

from fl_sim import local, rng, tree
from fl_sim.engines.results import BlockResult
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.learning import optim
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import accuracy, cross_entropy, squared_error
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform
from fl_sim.logs.many_runs import load_all
from fl_sim.logs.reader import RunLog, load
from fl_sim.logs.writer import RoundLog
from fl_sim.population.partition import Partition
from fl_sim.registry import offer
from fl_sim.rounds.callbacks import Callback, Run
from fl_sim.rounds.driver import run_rounds
from fl_sim.wire.pool import Pool, PoolingStrategy

__all__ = [
    "Batch",
    "BlockResult",
    "Callback",
    "ConfigError",
    "Local",
    "LocalRule",
    "Loss",
    "Partition",
    "Pool",
    "PoolingStrategy",
    "RoundFailed",
    "RoundLog",
    "Run",
    "RunLog",
    "SimulationGrid",
    "Task",
    "Transform",
    "accuracy",
    "cross_entropy",
    "from_arrays",
    "load",
    "load_all",
    "local",
    "offer",
    "optim",
    "rng",
    "run_rounds",
    "squared_error",
    "tree",
]
