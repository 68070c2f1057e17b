"""Each client has a fixed number of labels, and all labels have about as many clients: ``labels`` without its luck.

The quantity-based label imbalance of NIID-Bench (Q. Li, Y. Diao, Q. Chen, B. He, ICDE 2022, section IV-B1,
arXiv:2102.02079) gives labels at random (``labels``), so that sizes differ much; here they are dealt evenly.

Legend: N samples, C clients, K classes.
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
def labels_equal(task: Task, clients: int, seed: int, labels_per_client: Annotated[int, Ge(1)] = 2) -> Partition:
    """``labels_per_client`` labels a client, and equally many clients a label, up to 1: the sizes of clients are alike.

    One after the other, clients choose the labels with the fewest clients so far, among equals in an order fixed by a
    key. Raises ValueError if the task has no labels, if ``labels_per_client`` is greater than the number of labels, or
    if the clients together cannot cover all labels.
    """
    check(task, clients)
    label = classes(task, "labels-equal")
    k = int(label.max()) + 1
    if not 1 <= labels_per_client <= k:
        raise ValueError(
            f"partition.labels_per_client = {labels_per_client}: task {task.name!r} has {k} labels; choose 1..{k}"
        )
    if labels_per_client * clients < k:
        raise ValueError(
            f"partition.labels_per_client = {labels_per_client}: "
            f"{clients} clients would leave some of the {k} labels without an owner; "
            f"choose at least {-(-k // clients)}, or more clients"
        )
    owners: list[list[int]] = [[] for _ in range(k)]
    counts = np.zeros(k, dtype=np.int64)
    for c in range(clients):
        chosen = np.lexsort((rng.permutation(rng.key(seed, "partition-labels", c), k), counts))[:labels_per_client]
        counts[chosen] += 1
        for j in chosen.tolist():
            owners[j].append(c)
    owner = np.empty(len(label), dtype=np.int64)
    for j, who in enumerate(owners):
        members = np.flatnonzero(label == j)
        turns = rng.permutation(rng.key(seed, "partition-order", j), len(members))
        owner[members] = np.array(who)[turns % len(who)]
    return build(owner, clients, seed)
