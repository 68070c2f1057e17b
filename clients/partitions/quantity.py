"""Clients of very different sizes, each with the same mix of labels.

Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench),
ICDE 2022, section IV-B3 ("quantity skew"): sizes ~ Dir(alpha, ..., alpha). arXiv:2102.02079.
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from clients.partitions._repair import build, check, check_alpha, cuts, proportions
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def quantity(
    task: Task, clients: int, seed: int, alpha: Annotated[float, Gt(0)] = 0.5, min_samples: Annotated[int, Ge(1)] = 1
) -> Partition:
    """Size skew by ``alpha`` > 0: towards 0 one client has nearly all samples, towards infinity all sizes are equal.

    ``min_samples``, the smallest size of a client, is ensured by moving samples from the largest clients. Raises
    ValueError if a setting is out of range or there are too few samples.
    """
    check(task, clients, min_samples)
    check_alpha(alpha)
    shares = proportions(rng.generator(rng.key(seed, "partition-sizes")), alpha, np.ones(clients))
    owner = np.empty(task.num_train, dtype=np.int64)
    owner[rng.permutation(rng.key(seed, "partition-order"), task.num_train)] = cuts(shares, task.num_train)
    return build(owner, clients, seed, min_samples)
