"""Independent, identically distributed clients of equal sizes.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
section 3 ("IID"). arXiv:1602.05629.
"""

import numpy as np

from clients.partitions._repair import check
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def iid(task: Task, clients: int, seed: int) -> Partition:
    """Samples in a random order fixed by a key, cut into ``clients`` parts whose sizes differ by at most 1.

    Raises ValueError for more clients than samples.
    """
    check(task, clients)
    order = rng.permutation(rng.key(seed, "partition-iid"), task.num_train)
    return Partition.of([np.sort(part) for part in np.array_split(order, clients)])
