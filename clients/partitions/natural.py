"""The natural clients of the data: writers, roles, users.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, which argues for natural clients. arXiv:1812.01097.

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
    """Each natural client is one client; for a smaller number, natural clients are grouped at random, by a key.

    If C = M, client c is natural client c; groups have M // C or M // C + 1 natural clients. Raises ValueError if the
    task has no natural clients, or if C > M.
    """
    if task.clients is None:
        problem = f"partition.name = 'natural': task {task.name!r} does not say whose samples are whose"
        raise ValueError(f"{problem}; choose iid or dirichlet")
    known, owner = np.unique(task.clients, return_inverse=True)
    check(task, clients)
    if clients > len(known):
        raise ValueError(
            f"clients = {clients}: task {task.name!r} has {len(known)} natural clients; choose at most {len(known)}"
        )
    if clients < len(known):
        owner = (rng.permutation(rng.key(seed, "partition-groups"), len(known)) % clients)[owner]
    return build(owner.reshape(-1), clients, seed)
