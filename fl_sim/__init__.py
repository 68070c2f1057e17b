"""The simulator's core: models as trees, random draws, one client's training, blocks, engines, grids, rounds, logs.

It names no algorithm and no data set. The names in ``__all__`` are public, and a test pins them. Each is
imported when it is first used: ``import fl_sim`` alone imports neither torch nor Flower, which takes seconds.

The folders are floors of a stair, and each imports only from the floors after it: rounds, grids, executors, engines,
blocks, learning; then population, kernels, wire and logs; then the files tree, rng, dotted, errors and registry.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_PLACES = {
    "fl_sim": "local rng tree",
    "fl_sim.engines.results": "BlockResult",
    "fl_sim.errors": "ConfigError RoundFailed",
    "fl_sim.grids.simulation": "SimulationGrid",
    "fl_sim.learning": "optim",
    "fl_sim.learning.arrays": "from_arrays",
    "fl_sim.learning.loss": "Batch Loss",
    "fl_sim.learning.measures": "accuracy cross_entropy squared_error",
    "fl_sim.learning.rule": "LocalRule",
    "fl_sim.learning.settings": "Local",
    "fl_sim.learning.task": "Task",
    "fl_sim.learning.transform": "Transform",
    "fl_sim.logs.many_runs": "load_all",
    "fl_sim.logs.reader": "RunLog load",
    "fl_sim.logs.writer": "RoundLog",
    "fl_sim.population.partition": "Partition",
    "fl_sim.registry": "offer",
    "fl_sim.rounds.callbacks": "Callback Run",
    "fl_sim.rounds.driver": "run_rounds",
    "fl_sim.wire.pool": "Pool PoolingStrategy",
}
"""The public names of each module, as in the imports above (tested)."""


def __getattr__(name: str) -> Any:
    """Import a public name. Raises AttributeError for any other."""
    for place, names in _PLACES.items():
        if name in names.split():
            inner = place == __name__  # a module of this package
            module = importlib.import_module(f"{place}.{name}" if inner else place)
            found = globals()[name] = module if inner else getattr(module, name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, those that are not imported yet too."""
    return sorted({*globals(), *__all__})
