"""The clients that the data came with: writers, roles, users.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, on why natural clients matter. arXiv:1812.01097.

Legend: M natural clients, C clients.
"""

import numpy as np

from clients.partitions._repair import build, check
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def natural(task: Task, clients: int, seed: int) -> Partition:
    """One client a natural client; with fewer ``clients``, whole natural clients are grouped in a keyed order.

    Client c is natural client c where C = M; groups have M // C or M // C + 1 natural clients. Raises ValueError
    for a task without natural clients, and for C > M.
    """
    if task.clients is None:
        raise ValueError(
            f"partition.name = 'natural': task {task.name!r} does not say whose samples are whose; choose iid or dirichlet"
        )
    known, owner = np.unique(task.clients, return_inverse=True)
    check(task, clients)
    if clients > len(known):
        raise ValueError(
            f"clients = {clients}: task {task.name!r} has {len(known)} natural clients; choose at most {len(known)}"
        )
    if clients < len(known):
        owner = (rng.permutation(rng.key(seed, "partition-groups"), len(known)) % clients)[owner]
    return build(owner.reshape(-1), clients, seed)
