"""A world in which slow devices hold what others lack: the slow third of the clients has all samples of two classes.

Legend: C clients, N samples.
"""

import numpy as np

from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.devices import Draw, Drawn, normal_quantile, uniform
from fl_sim.registry import offer

RARE = (8, 9)
"""The classes that only slow clients hold."""


@offer("partition")
def slow_shards(task: Task, clients: int, seed: int) -> list[np.ndarray]:
    """Two shards of one label for each client, as ``shards``; all those of the classes ``RARE`` for the last third.

    The last third of the ids are the slow clients of ``slow_third``. They share out the shards of ``RARE`` evenly, and
    have as many others as are left. Raises ValueError where these shards are more than the last third can hold.
    """
    label = task.train["y"].numpy()
    shuffled = rng.permutation(rng.key(seed, "partition-order"), len(label))
    by_label = shuffled[np.argsort(np.isin(label[shuffled], RARE) * 100 + label[shuffled], kind="stable")]
    total = 2 * clients
    shard = np.arange(len(label)) * total // len(label)
    common = int(shard[: int((~np.isin(label, RARE)).sum())][-1]) + 1  # a mixed shard counts as a common one
    fast = 2 * (2 * clients // 3)
    if common < fast:
        what = f"{total - common} shards of classes {RARE} for {total - fast} places of slow clients"
        raise ValueError(f"partition.name = slow_shards: {what}; give data with fewer samples of these classes")
    dealt = rng.permutation(rng.key(seed, "partition-deal"), common)
    places = np.repeat(np.arange(clients), 2)
    late = np.concatenate([places[fast:][::2], places[fast:][1::2]])  # each slow client once, then once more
    owner_of_shard = np.empty(total, np.int64)
    owner_of_shard[common:] = late[: total - common]
    owner_of_shard[dealt] = np.concatenate([places[:fast], late[total - common :]])
    owner = np.empty(len(label), np.int64)
    owner[by_label] = owner_of_shard[shard]
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=clients))[:-1])


@offer("profile")
def slow_third(clients: int) -> Draw:
    """Half-normal slowness drawn anew for each launch, in the third of its distribution that the client's id says.

    The last third of the ids is the slowest. Over all clients it is that of ``halfnormal`` with ``per = launch``.
    """

    def draw(ids: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        third = np.minimum(ids * 3 // clients, 2)
        u = (third + uniform(launch, "slowness")) / 3
        return Drawn(normal_quantile((1 + u) / 2), third)

    return draw
