"""A workload as the settings of a run of this simulator."""

import numpy as np

from experiments.bench.workloads.catalogue import Work
from fl_sim import Task, from_arrays, rng

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}
"""Shape of one sample of each data set: channels, height, width."""


def settings(work: Work, rounds: int, out: str, **more: object) -> dict[str, object]:
    """A workload as keyword arguments of ``experiments.config.recipe_files.make`` and ``experiments.run.run``."""
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
    """A task of random arrays with the data set's shapes: the amount of arithmetic does not depend on their content."""
    generator = rng.generator(rng.key(0, "bench-data"))
    shape = SHAPES[work.task]
    x, test = (generator.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (work.train, work.test))
    y, y_test = (np.arange(count) % 10 for count in (work.train, work.test))
    return from_arrays(x, y, x_test=test, y_test=y_test, outputs=10, name=work.task)
