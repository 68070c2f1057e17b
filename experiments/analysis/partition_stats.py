"""The skew of a partition: statistics of each client, and a summary.

The summary measures label skew by the mean total-variation distance between a client's label distribution p and that of
all clients together, q: TV(p, q) = sum |p_k - q_k| / 2. It is 0 where every client has the distribution of the whole,
and near 1 where each client has labels that few others have.

Legend: N samples, C clients, K classes.
"""

import numpy as np
import pandas as pd

from clients.label_counts import counts
from clients.shares import sampled_clients
from fl_sim.population.partition import Partition, median


def frame(partition: Partition, labels: np.ndarray | None) -> pd.DataFrame:
    """Statistics of each client, or of at most 1000 clients (a keyed choice) where clients share samples.

    Parameters
    ----------
    partition : Partition
        The partition, which names the samples of each client.
    labels : array (N,) or None
        The label of each sample.

    Returns
    -------
    DataFrame
        Columns: ``client``; ``samples``, all that it owns; ``held_out``, how many of these are held out; ``labels``,
        how many different ones it has; ``largest_share``, the share of its most frequent label; ``entropy`` of its
        label distribution in bits, log2 K where all labels are equally frequent; ``distance``, the total variation to
        the distribution of all clients, 0..1. The last four are NaN where ``labels`` is None, and of a client without
        samples.
    """
    table, shown = counts(partition, labels), sampled_clients(partition)
    held_out = [partition.sizes(c)[1] for c in shown]
    rows = pd.DataFrame({"client": np.asarray(shown), "samples": table.sum(1), "held_out": held_out})
    if labels is None:
        return rows.assign(labels=np.nan, largest_share=np.nan, entropy=np.nan, distance=np.nan)
    mix = table / np.maximum(table.sum(1, keepdims=True), 1)
    logs = np.log2(mix, out=np.zeros_like(mix), where=mix > 0)
    distance = np.abs(mix - table.sum(0) / table.sum()).sum(1) / 2
    labels, entropy = (table > 0).sum(1), np.abs((mix * logs).sum(1))
    if not (some := table.sum(1) > 0).all():  # clients without samples have no distribution
        labels, mix, entropy, distance = (np.where(some, x.T, np.nan).T for x in (labels, mix, entropy, distance))
    return rows.assign(labels=labels, largest_share=mix.max(1), entropy=entropy, distance=distance)


def summary(partition: Partition, labels: np.ndarray | None) -> dict[str, float]:
    """The partition in a few numbers.

    Returns
    -------
    dict
        ``clients``; ``samples``; ``min``, ``median`` and ``max``, the samples of a client; ``moved``, the samples that
        the partition gave to another client so that each has enough; ``filled``, how many clients got them. With labels
        also the means over clients of ``labels``, ``largest_share``, ``entropy`` (bits) and ``distance`` (total
        variation), over the clients that ``frame`` has; ``shown`` is their number where ``frame`` does not have all.
    """
    rows, kinds = frame(partition, labels), partition.size_counts()
    size, clients = kinds[:, :2].sum(1), kinds[:, 2]
    numbers = {
        "clients": len(partition),
        "samples": (size * clients).sum(),
        "min": size.min(),
        "median": median(size, clients),
        "max": size.max(),
        "moved": partition.moved,
        "filled": partition.filled,
        **({"shown": len(rows)} if len(rows) < len(partition) else {}),
    }
    if labels is not None:
        numbers |= {name: rows[name].mean() for name in ("labels", "largest_share", "entropy", "distance")}
    return {name: float(value) for name, value in numbers.items()}
