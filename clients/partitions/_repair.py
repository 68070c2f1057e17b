"""Functions shared by the partitions: checks of arguments, Dirichlet draws, repair of clients that are too small.

NIID-Bench (Li 2022) repeats a draw until every client is large enough, which may never end for a small alpha. Here the
largest clients give samples away instead, and the number of moved samples is reported.

Legend: N samples, C clients, K classes.
"""

import heapq
import math
import warnings

import numpy as np

from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Listed, Partition

MOST_REPAIRED = 0.05
"""The share of samples that are moved, or of clients that were too small, above which there is a warning."""


def check(task: Task, clients: int, min_samples: int = 1) -> None:
    """Raise ValueError that names the setting unless N samples suffice for ``min_samples`` for each of C clients."""
    n = task.num_train
    if clients < 1:
        raise ValueError(f"clients = {clients}: must be at least 1")
    if clients > n:
        raise ValueError(
            f"clients = {clients}: task {task.name!r} has only {n} training samples; choose at most {n} clients"
        )
    if min_samples < 1:
        raise ValueError(f"partition.min_samples = {min_samples}: must be at least 1 (no client may be empty)")
    if min_samples * clients > n:
        raise ValueError(
            f"partition.min_samples = {min_samples}: {clients} clients would need {min_samples * clients} samples, "
            f"task {task.name!r} has {n}; choose at most {n // clients}, or fewer clients"
        )


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless alpha is a finite number above 0."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"partition.alpha = {alpha}: must be a finite number above 0 (small: skewed; large: even)")


def classes(task: Task, partition: str) -> np.ndarray:
    """(N,) int64 in 0..K-1: the class of each training sample, numbered over the K classes that occur.

    Raises ValueError that names the ``partition`` if the task has no class labels.
    """
    if task.labels is None:
        problem = f"partition.name = {partition!r}: task {task.name!r} has no class labels to divide"
        raise ValueError(f"{problem}; choose iid, quantity or natural")
    return np.unique(task.labels, return_inverse=True)[1].reshape(-1)


def proportions(draw: np.random.Generator, alpha: float, base: np.ndarray) -> np.ndarray:
    """One draw from Dir(alpha * base), with weights ``base`` (n,) above 0: (n,) float64 with sum 1.

    Where floating-point numbers over- or underflow, the limit of the distribution is used: for a very small alpha all
    the weight at one index, drawn with probabilities proportional to ``base``; for a very large alpha ``base``
    normalised.
    """
    mean = base / base.sum()
    if alpha * base.min() > 1e12:
        return np.asarray(mean)
    if alpha * base.min() > 1e-100:
        drawn = draw.dirichlet(alpha * base)
        if np.isfinite(drawn).all() and abs(drawn.sum() - 1) < 1e-6:
            return np.asarray(drawn)
    return np.asarray(np.eye(len(base))[draw.choice(len(base), p=mean)])


def cuts(shares: np.ndarray, n: int) -> np.ndarray:
    """The client of each of ``n`` samples, (n,) int64: C consecutive runs of lengths by ``shares`` (C,) with sum 1."""
    ends = np.append((np.cumsum(shares)[:-1] * n).astype(np.int64).clip(0, n), n)
    return np.repeat(np.arange(len(shares)), np.diff(ends, prepend=0))


def build(owner: np.ndarray, clients: int, seed: int, min_samples: int = 1) -> Listed:
    """A partition from the owner of each sample (N,), in which each client has at least ``min_samples``.

    Clients that are too small are filled up in the order of their ids. Each sample is taken from the client that is
    largest at that moment (the lowest id among equals), at random by a key of ``seed``. Warns if more than 5 % of the
    samples are moved, or more than 5 % of the clients were too small.
    """
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=clients)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    poor = np.flatnonzero(sizes < min_samples)
    if not len(poor):
        return Partition.of(parts)
    largest = [(-int(size), c) for c, size in enumerate(sizes) if size > min_samples]
    heapq.heapify(largest)
    stock: dict[int, list[int]] = {}
    received: dict[int, list[int]] = {int(c): [] for c in poor}
    moved = 0
    for c in poor.tolist():
        for _ in range(min_samples - int(sizes[c])):
            size, giver = largest[0]
            if giver not in stock:
                stock[giver] = parts[giver][rng.permutation(rng.key(seed, "repair", giver), len(parts[giver]))].tolist()
            received[c].append(stock[giver].pop())
            heapq.heapreplace(largest, (size + 1, giver))
            moved += 1
    for giver, left in stock.items():
        parts[giver] = np.sort(np.array(left, dtype=np.int64))
    for c, added in received.items():
        parts[c] = np.sort(np.append(parts[c], np.array(added, dtype=np.int64)))
    if moved > MOST_REPAIRED * len(owner) or len(poor) > MOST_REPAIRED * clients:
        warnings.warn(
            f"partition: {moved} of {len(owner)} samples ({moved / len(owner):.1%}) were moved "
            f"to give each of {clients} clients at least {min_samples}: "
            f"{len(poor)} clients ({len(poor) / clients:.1%}) had fewer, and have {min_samples} now; "
            "the partition is more even than its parameters say",
            stacklevel=3,
        )
    return Partition.of(parts, moved, filled=len(poor))
