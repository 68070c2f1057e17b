"""The natural clients of the data: writers, roles, users.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, which argues for natural clients. arXiv:1812.01097.

Legend: M natural clients, K of them with training samples, C clients.
"""

from dataclasses import replace

import numpy as np

from clients.partitions._repair import build, check
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def natural(task: Task, clients: int, seed: int) -> Partition:
    """Each natural client is one client; for a smaller number, natural clients are grouped at random, by a key.

    If C = M, client c is natural client c; one whose samples all went to a test or validation share keeps its id and
    never trains (``Partition.idle``). Else groups have K // C or K // C + 1 natural clients. Raises ValueError if the
    task has no natural clients, if C > M, or if K < C < M.
    """
    if task.clients is None:
        problem = f"partition.name = 'natural': task {task.name!r} does not say whose samples are whose"
        raise ValueError(f"{problem}; choose iid or dirichlet")
    known, owner = np.unique(task.clients, return_inverse=True)
    if task.turns and not clients == task.num_clients == len(known):
        why = f"the {len(known)} clients of task {task.name!r} number their classes each in its own way"
        raise ValueError(f"clients = {clients}: {why}, so that they cannot be grouped; choose as many")
    if clients == task.num_clients > len(known):
        idle = np.setdiff1d(np.arange(clients), known, assume_unique=True)
        return replace(build(task.clients, clients, seed, min_samples=0), idle=tuple(idle.tolist()))
    check(task, clients)
    if clients > len(known):
        lost = task.num_clients - len(known)
        more = f", and {lost} without training samples" if lost else ""
        cure = f"choose at most {len(known)}" + (f", or {task.num_clients}, where they keep their ids" if lost else "")
        raise ValueError(f"clients = {clients}: task {task.name!r} has {len(known)} natural clients{more}; {cure}")
    if clients < len(known):
        owner = (rng.permutation(rng.key(seed, "partition-groups"), len(known)) % clients)[owner]
    return replace(build(owner.reshape(-1), clients, seed), turns=task.turns)
