"""Which client owns how many samples of each label.

Legend: N samples, C clients, K classes.
"""

from collections.abc import Sequence

import numpy as np

from clients.shares import sampled_clients
from fl_sim.population.partition import Partition


def counts(partition: Partition, labels: np.ndarray | None, clients: Sequence[int] | None = None) -> np.ndarray:
    """Number of samples of each label at each client, held-out samples included.

    Parameters
    ----------
    partition : Partition
        The partition, which names the samples of each client.
    labels : array (N,) or None
        The label of each sample.
    clients : sequence of int, optional
        The clients; default: those that ``sampled_clients`` chooses.

    Returns
    -------
    array (C, K) of int64
        Labels ascending; K is 1 where there are no labels.
    """
    owned = [partition.client(c) for c in (sampled_clients(partition) if clients is None else clients)]
    owner = np.repeat(np.arange(len(owned)), [len(mine) for mine in owned])
    if labels is None:
        return np.bincount(owner, minlength=len(owned)).reshape(-1, 1)
    label = np.unique(labels, return_inverse=True)[1].reshape(-1)
    k = int(label.max(initial=0)) + 1
    return np.bincount(owner * k + label[np.concatenate(owned)], minlength=len(owned) * k).reshape(-1, k)
