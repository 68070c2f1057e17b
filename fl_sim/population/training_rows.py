"""The samples of all clients that train, as one set: what ``--evaluate_train`` measures the global model on.

Legend: N samples, C clients, n rows.
"""

import numpy as np

from fl_sim.errors import ConfigError
from fl_sim.population.partition import Listed, Partition

MOST_SHARED = 2**24
"""Most rows of clients that share samples: their list has a place for each draw, however many clients there are."""
TOGETHER = 1024
"""Clients whose indices are read at once."""


def training_rows(partition: Partition, clients: int) -> np.ndarray:
    """(n,) int64, ascending: the indices of the training parts of the clients 0..clients-1.

    Held-out parts, and clients with later ids, which never train, are not in it. Where clients share samples
    (``resample``), an index occurs as often as clients own it.

    Raises
    ------
    ConfigError
        Where clients that share samples own more than ``MOST_SHARED`` together.
    """
    counts = partition.size_counts(clients)
    total = int((counts[:, 0] * counts[:, 2]).sum())
    if not partition.exclusive and total > MOST_SHARED:
        what = f"the clients, which share samples, own {total} training samples together, and at most {MOST_SHARED} fit"
        raise ConfigError(f"evaluate_train = True: {what}; choose fewer clients, or leave it out")
    rows = _of_listed(partition, clients) if isinstance(partition, Listed) else _of_any(partition, clients)
    rows.sort()
    return rows


def _of_listed(partition: Listed, clients: int) -> np.ndarray:
    """The rows of a partition that stores its indices, without a loop over clients."""
    ends = partition.starts[1 : clients + 1] - partition.held_out[:clients]
    steps = np.zeros(int(partition.starts[clients]) + 1, np.int8)  # +1 where a training part begins, -1 where it ends
    np.add.at(steps, partition.starts[:clients], 1)
    np.add.at(steps, ends, -1)
    return partition.indices[: len(steps) - 1][np.cumsum(steps[:-1], dtype=np.int8) > 0].astype(np.int64)


def _of_any(partition: Partition, clients: int) -> np.ndarray:
    parts = [np.empty(0, np.int64)]
    for first in range(0, clients, TOGETHER):
        ids = range(first, min(first + TOGETHER, clients))
        parts += [own[: partition.sizes(c)[0]] for c, own in zip(ids, partition.several(ids), strict=True)]
    return np.concatenate(parts)
