"""A deadline that no device meets, found before the run."""

import numpy as np

from experiments.runs.setup import Setup
from fl_sim import SimulationGrid
from fl_sim.errors import ConfigError
from fl_sim.grids.virtual_time.timed_round import work_of
from fl_sim.population.devices import LONGEST, SECOND
from fl_sim.wire import records
from strategies.base.strategy import Strategy

AT_ONCE = 10_000
"""Clients that are examined at a time."""


def check_deadline(setup: Setup) -> None:
    """Raise ConfigError where no client answers before ``system.deadline``."""
    grid, config = setup.grid, setup.config
    if not isinstance(grid, SimulationGrid) or grid.time is None or not grid.time.deadline:
        return
    strategy, carried = setup.strategy, setup.train_config
    sent = strategy.round_settings(1, carried) if isinstance(strategy, Strategy) else carried
    clients = setup.partition.working(0, len(setup.partition) - config.never_train)
    settings = {**sent, "server-round": 1}
    received, fastest = setup.loss.received(records.decode(setup.initial)), LONGEST
    for first in range(0, len(clients), AT_ONCE):  # mostly one of the first meets it
        orders = [(place, int(client), settings) for place, client in enumerate(clients[first : first + AT_ONCE])]
        work, _ = work_of([({"arrays": setup.initial}, orders, received)], setup.learner)
        took = grid.time.devices.durations(work, 1)
        if (grid.time.in_time(work, took) > 0).any():
            return
        fastest = min(fastest, int(np.min(took.total)))
    what = f"no device meets it; the fastest of {len(clients)} takes {fastest / SECOND:g} virtual seconds"
    raise ConfigError(f"system.deadline = {config.system.deadline:g}: {what}; give more time, or less work")
