"""A label mix per client, all clients of equal size: skewed labels alone.

T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, section 2. arXiv:1909.06335. Used by S. Reddi et al., "Adaptive Federated Optimization",
ICLR 2021, arXiv:2003.00295.

For each client: q ~ Dir(alpha * p), where p (K,) are the classes' shares in the whole data; its samples are drawn
by q without replacement. A class that has run out leaves q, the rest is renormalised.

Legend: N samples, C clients, K classes.
"""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from clients.partitions._repair import build, check, check_alpha, classes, proportions
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition
from fl_sim.registry import offer


@offer("partition")
def dirichlet_client(task: Task, clients: int, seed: int, alpha: Annotated[float, Gt(0)] = 0.5) -> Partition:
    """Label skew by ``alpha`` > 0, the concentration summed over the classes: towards 0 one label a client, towards infinity all alike.

    Sizes differ by at most 1. Clients draw in a keyed order, since late ones find less choice. Raises ValueError
    for a task without labels, and for more clients than samples.
    """
    check(task, clients)
    check_alpha(alpha)
    label = classes(task, "dirichlet-client")
    left = np.bincount(label)
    prior = left / left.sum()
    counts = np.zeros((clients, len(left)), dtype=np.int64)
    for c in rng.permutation(rng.key(seed, "partition-turns"), clients).tolist():
        draw = rng.generator(rng.key(seed, "partition-mix", c))
        counts[c] = _take(
            draw, proportions(draw, alpha, prior), left, len(label) // clients + (c < len(label) % clients)
        )
        left -= counts[c]
    owner = np.empty(len(label), dtype=np.int64)
    for k in range(len(left)):
        members = np.flatnonzero(label == k)
        members = members[rng.permutation(rng.key(seed, "partition-order", k), len(members))]
        owner[members] = np.repeat(np.arange(clients), counts[:, k])
    return build(owner, clients, seed)


def _take(draw: np.random.Generator, mix: np.ndarray, left: np.ndarray, size: int) -> np.ndarray:
    """(K,) how many of each class: ``size`` draws by ``mix`` (K,), never more of a class than are ``left`` (K,)."""
    taken = np.zeros_like(left)
    while (missing := size - int(taken.sum())) > 0:
        open_mix = np.where(taken < left, mix, 0.0)
        if open_mix.sum() <= 0:  # the mix has nothing left to give: by what the data still holds
            open_mix = (left - taken).astype(np.float64)
        taken += np.minimum(draw.multinomial(missing, open_mix / open_mix.sum()), left - taken)
    return taken
