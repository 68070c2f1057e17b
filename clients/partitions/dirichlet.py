"""Each class is divided over the clients in Dirichlet proportions: clients differ in labels and in sizes.

Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench),
ICDE 2022, section IV-B1 (after Yurochkin et al., ICML 2019). arXiv:2102.02079.

For each class k: p_k ~ Dir(alpha, ..., alpha) over the C clients; client j receives the share p_kj of class k.

Legend: N samples, C clients, K classes.
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from clients.partitions._repair import build, check, check_alpha, classes, cuts, proportions
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def dirichlet(
    task: Task,
    clients: int,
    seed: int,
    alpha: Annotated[float, Gt(0)] = 0.5,
    min_samples: Annotated[int, Ge(1)] = 1,
    balance: bool = True,
) -> Partition:
    """Label skew by ``alpha`` > 0: towards 0 each class has one owner, towards infinity all clients are alike.

    Parameters
    ----------
    alpha : float (default: 0.5)
        Concentration of the Dirichlet distribution.
    min_samples : int (default: 1)
        Smallest size of a client, ensured by moving samples from the largest clients (the published code repeats the
        draw instead).
    balance : bool (default: True)
        Whether a client that has N / C samples or more gets none of the remaining classes, as in the published code.

    Raises
    ------
    ValueError
        If the task has no labels, a setting is out of range, or there are too few samples.
    """
    check(task, clients, min_samples)
    check_alpha(alpha)
    label = classes(task, "dirichlet")
    owner = np.empty(len(label), dtype=np.int64)
    sizes = np.zeros(clients, dtype=np.int64)
    for k in range(int(label.max()) + 1):
        members = np.flatnonzero(label == k)
        members = members[rng.permutation(rng.key(seed, "partition-order", k), len(members))]
        open_to = np.flatnonzero(sizes * clients < len(label)) if balance else np.arange(clients)
        shares = np.zeros(clients)
        shares[open_to] = proportions(
            rng.generator(rng.key(seed, "partition-dirichlet", k)), alpha, np.ones(len(open_to))
        )
        owner[members] = cuts(shares, len(members))
        sizes += np.bincount(owner[members], minlength=clients)
    return build(owner, clients, seed, min_samples)
