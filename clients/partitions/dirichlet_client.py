"""Each client has its own Dirichlet mix of labels; all clients have the same size.

T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, section 2. arXiv:1909.06335. Used by S. Reddi et al., "Adaptive Federated Optimization",
ICLR 2021, arXiv:2003.00295.

For each client: q ~ Dir(alpha * p), where p (K,) are the shares of the classes in the whole data; its samples are drawn
without replacement, with class probabilities q. A class without remaining samples is removed from q, which is
normalised again.

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
    """Label skew by ``alpha`` > 0: towards 0 each client has one label, towards infinity all clients are alike.

    ``alpha`` is the concentration summed over the classes. Sizes differ by at most 1. Clients draw in a random order,
    fixed by a key, since the last ones find fewer classes left. Raises ValueError if the task has no labels, or for
    more clients than samples.
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
    """(K,) draws of each class: ``size`` draws by ``mix`` (K,), at most ``left`` (K,) of each class."""
    taken = np.zeros_like(left)
    while (missing := size - int(taken.sum())) > 0:
        open_mix = np.where(taken < left, mix, 0.0)
        if open_mix.sum() <= 0:  # No class of the mix is left: draw by the shares of the remaining samples.
            open_mix = (left - taken).astype(np.float64)
        taken += np.minimum(draw.multinomial(missing, open_mix / open_mix.sum()), left - taken)
    return taken
