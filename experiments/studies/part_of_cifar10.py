"""A fixed part of CIFAR-10, so that a study of many runs takes an hour of one core."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.tasks.cifar10 import cifar10
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.registry import offer


@offer("task")
def part_of_cifar10(
    data_dir: str | None = None,
    train: Annotated[int, Ge(1)] = 6000,
    test: Annotated[int, Ge(1)] = 5000,
    skip: Annotated[int, Ge(0)] = 0,
) -> Task:
    """``train`` training pictures and ``test`` test pictures of CIFAR-10, the same ones in each run.

    They are drawn by a key that is no run's seed. With ``skip`` training pictures left out first, two runs may have
    parts that share no picture. Fewer pictures come where there are not as many. Data as of ``cifar10``.
    """
    task = cifar10(data_dir)
    mine = _drawn("train", len(task.train["y"]))[skip : skip + train]
    tested = _drawn("test", len(task.test["y"]))[:test]
    return replace(task.subset(np.sort(mine)), test={k: v[np.sort(tested)] for k, v in task.test.items()})


def _drawn(name: str, count: int) -> np.ndarray:
    return rng.permutation(rng.key(0, f"part-of-cifar10-{name}"), count)
