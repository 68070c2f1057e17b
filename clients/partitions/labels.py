"""Each client has a fixed number of labels, given at random; the clients of a label share its samples equally.

Q. Li, Y. Diao, Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench),
ICDE 2022, section IV-B1 ("quantity-based label imbalance", #C = k). arXiv:2102.02079. As in the authors' code, client i
has the label i mod K, and others at random: some labels have one client, others many, so that sizes differ much.

Legend: N samples, C clients, K classes, m labels of a client.
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.partitions._repair import build, check, classes
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer

AT_ONCE = 2**20
"""Draws that are held in memory at once: 8 bytes each."""


@offer("partition")
def labels(task: Task, clients: int, seed: int, labels_per_client: Annotated[int, Ge(1)] = 2) -> Partition:
    """Label i mod K for client i, and others at random; the clients of a label share its samples equally.

    With fewer clients than labels, a draw may leave labels without a client. That is an error, as in the authors' code,
    which divides by zero there: a model that is tested on labels that nobody has would be judged by them in silence.

    Raises
    ------
    ValueError
        If the task has no labels, ``labels_per_client`` is not in 1..K, or a label has no client.
    """
    check(task, clients)
    label = classes(task, "labels")
    k = int(label.max()) + 1
    if not 1 <= labels_per_client <= k:
        raise ValueError(
            f"partition.labels_per_client = {labels_per_client}: task {task.name!r} has {k} labels; choose 1..{k}"
        )
    theirs = drawn_labels(clients, k, labels_per_client, seed)
    given = np.argsort(theirs.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(theirs.reshape(-1), minlength=k))
    owner = np.empty(len(label), dtype=np.int64)
    for j, who in enumerate(np.split(given // labels_per_client, ends[:-1])):
        members = np.flatnonzero(label == j)
        if not len(who):
            raise ValueError(
                f"partition.labels_per_client = {labels_per_client}: with partition.seed = {seed} none of {clients} "
                f"clients has class {j} ({len(members)} samples) of task {task.name!r}; choose at least {k} clients, "
                "more labels per client, or --partition labels-equal, which deals labels evenly"
            )
        turns = rng.permutation(rng.key(seed, "partition-order", j), len(members))
        owner[members] = who[turns % len(who)]
    return build(owner, clients, seed)


def drawn_labels(clients: int, k: int, each: int, seed: int) -> np.ndarray:
    """The labels of each client, (C, m) int64: first i mod K, then others, uniform without repetition, by a key."""
    base, step = np.array(rng.key(seed, "partition-labels"), np.uint64), max(1, AT_ONCE // k)
    found = np.empty((clients, each), dtype=np.int64)
    for first in range(0, clients, step):
        ids = np.arange(first, min(first + step, clients))
        words = rng.subkeys(rng.subkeys(base, ids)[:, None], np.arange(k)) | np.uint64(1)
        words[np.arange(len(ids)), ids % k] = 0  # the smallest, so that a client's own label comes first
        found[ids] = words.argsort(axis=1, kind="stable")[:, :each]
    return found
