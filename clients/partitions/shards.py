"""Samples sorted by label and cut into shards, a few shards for each client: the first published non-IID partition.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
section 3 ("pathological non-IID": 200 shards of 300 MNIST digits, 2 for each of 100 clients). arXiv:1602.05629.
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.partitions._repair import build, check, classes
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def shards(task: Task, clients: int, seed: int, shards_per_client: Annotated[int, Ge(1)] = 2) -> Partition:
    """``clients * shards_per_client`` shards, of sizes that differ by at most 1, dealt at random by a key.

    Samples within a class are in random order too. Raises ValueError for a task without labels, ``shards_per_client`` <
    1, or more clients than samples.
    """
    check(task, clients)
    if shards_per_client < 1:
        raise ValueError(f"partition.shards_per_client = {shards_per_client}: must be at least 1")
    label = classes(task, "shards")
    shuffled = rng.permutation(rng.key(seed, "partition-order"), len(label))
    by_label = shuffled[np.argsort(label[shuffled], kind="stable")]
    total = clients * shards_per_client
    dealt_to = rng.permutation(rng.key(seed, "partition-deal"), total) % clients
    owner = np.empty(len(label), dtype=np.int64)
    owner[by_label] = dealt_to[np.arange(len(label)) * total // len(label)]
    return build(owner, clients, seed)
