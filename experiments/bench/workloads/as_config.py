"""A workload as settings of ours. No paper."""

from typing import Any

import numpy as np

from experiments.bench.workloads.catalogue import Work
from fl_sim import Task, from_arrays, rng

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}


def settings(work: Work, rounds: int, out: str, **more: Any) -> dict[str, Any]:
    """Keywords of ``experiments.config.recipe_files.make`` and ``experiments.run.run``."""
    return {
        "task": random_task(work) if work.random and work.task else work.task,
        "partition": dict(work.partition),
        "model": work.model,
        "clients": work.clients,
        "cohort": work.cohort,
        "rounds": rounds,
        "local": {"epochs": 1, "batch_size": work.batch, "lr": work.lr},
        "standardize": work.standardize,
        "evaluate_every": work.evaluate_every or rounds,
        "out": out,
        **more,
    }


def random_task(work: Work) -> Task:
    """Random arrays of the data set's shapes: arithmetic does not depend on what they show."""
    draws = rng.generator(rng.key(0, "bench-data"))
    shape = SHAPES[work.task]
    x, test = (draws.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (work.train, work.test))
    y, y_test = (np.arange(count) % 10 for count in (work.train, work.test))
    return from_arrays(x, y, x_test=test, y_test=y_test, outputs=10, name=work.task)
