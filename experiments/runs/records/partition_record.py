"""What a run's folder says of its partition: which client owns how many samples of each label."""

from collections.abc import Sequence

import numpy as np

from clients.label_counts import counts
from clients.shares import sampled_clients
from experiments.runs.setup import Setup
from fl_sim import rng
from fl_sim.logs.kept import partition_file
from fl_sim.logs.writer import RoundLog

MOST_CLIENTS, MOST_LABELS = 10_000, 1000
"""Of more clients a keyed choice is recorded; of more labels only each client's number of samples."""


def record_partition(setup: Setup, log: RoundLog) -> None:
    """Write ``partition.json``; held-out samples are counted too."""
    labels = setup.task.labels
    names = [] if labels is None else np.unique(labels).tolist()
    if labels is None or len(names) > MOST_LABELS or len(labels) < len(setup.task.train["y"]):
        labels, names = None, ["samples"]
    chosen = clients_of(sampled_clients(setup.partition))
    partition_file.write(log.path, chosen, names, counts(setup.partition, labels, chosen).tolist())


def clients_of(known: Sequence[int]) -> list[int]:
    """All of these clients, or a keyed choice of ``MOST_CLIENTS``, ascending."""
    if len(known) <= MOST_CLIENTS:
        return [int(c) for c in known]
    return sorted(int(known[i]) for i in rng.sample(rng.key(0, "looked-at"), len(known), MOST_CLIENTS))
