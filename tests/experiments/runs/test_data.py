"""A task that is kept for the next run is the one that was given, whatever objects come and go."""

import gc
import weakref

import numpy as np

from experiments.config.recipe_files import make
from experiments.runs.data import data
from fl_sim.learning.arrays import from_arrays


def test_a_kept_task_shares_its_identity_with_no_later_one() -> None:
    task = from_arrays(np.eye(4, dtype=np.float32), np.arange(4) % 2)
    kept = weakref.ref(task)
    data(make(task=task, model="lr", clients=2))
    del task
    gc.collect()
    assert kept() is not None
