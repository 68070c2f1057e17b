"""Natural clients crossed with labels: a client has samples of one writer, role or site, and of few labels.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, arXiv:1812.01097, has natural clients; few labels a
client as in B. McMahan et al., AISTATS 2017, section 3, arXiv:1602.05629. Crossed, both who writes and what is written
differ between clients; writers alone are more balanced than chance.

Legend: M natural clients, C clients, K classes, m labels of a client, G = ceil(K / m), W = ceil(C / G).
"""

import warnings
from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.partitions._repair import build, check, classes
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def natural_labels(task: Task, clients: int, seed: int, labels_per_client: Annotated[int, Ge(1)] = 3) -> Partition:
    """The samples of each natural client are divided among G clients by their labels, at most m labels each.

    Labels are dealt by a key, for each natural client anew. With C = M G each is one natural client's; with fewer
    clients, natural ones are grouped at random, by a key, into W groups. The clients of group w have the ids
    w G .. w G + G - 1, so that of the last ``holdout_clients`` (and the ``validation_clients`` before them), multiples
    of G, no writer trains. Where C is no multiple of G, the last group has fewer clients, with more labels, and a
    warning says so. A client without samples gets one from the largest, as in other partitions.

    Raises ValueError for a task without natural clients or without labels, for m outside 1..K, and for C > M G.
    """
    if task.clients is None:
        problem = f"partition.name = 'natural-labels': task {task.name!r} does not say whose samples are whose"
        raise ValueError(f"{problem}; choose labels-equal or shards")
    check(task, clients)
    label = classes(task, "natural-labels")
    k, m = int(label.max()) + 1, labels_per_client
    if not 1 <= m <= k:
        raise ValueError(f"partition.labels_per_client = {m}: task {task.name!r} has {k} labels; choose 1..{k}")
    known, owner = np.unique(task.clients, return_inverse=True)
    cells = -(-k // m)
    groups = -(-clients // cells)
    if groups > len(known):
        what = f"{len(known)} natural clients, each divided among {cells}"
        raise ValueError(f"clients = {clients}: task {task.name!r} has {what}; choose at most {len(known) * cells}")
    if rest := clients % cells:
        what = f"the last {rest} of {clients} clients have up to {-(-k // rest)} labels, the others {m}"
        warnings.warn(f"partition: {what}; a multiple of {cells} clients would have none such", stacklevel=3)
    group = (rng.permutation(rng.key(seed, "partition-groups"), len(known)) % groups)[owner.reshape(-1)]
    dealt = np.empty((groups, k), dtype=np.int64)
    for w in range(groups):
        parts = np.array_split(
            rng.permutation(rng.key(seed, "partition-labels", w), k), min(cells, clients - w * cells)
        )
        for cell, own in enumerate(parts):
            dealt[w, own] = w * cells + cell
    return build(dealt[group, label], clients, seed)
