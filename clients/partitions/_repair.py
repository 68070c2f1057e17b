"""What the partitions share: checks of their arguments, a Dirichlet draw that never fails, repair of too small clients.

No paper. NIID-Bench (Li 2022) redraws until every client is large enough, which need not end for a small alpha;
here the largest clients give samples away instead, and the number given is told.

Legend: N samples, C clients, K classes.
"""

import heapq
import math
import warnings

import numpy as np

from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition


def check(task: Task, clients: int, min_samples: int = 1) -> None:
    """Raise ValueError, naming the key, unless N samples can give each of C clients ``min_samples``."""
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

    Raises ValueError where the task has no class labels.
    """
    if task.labels is None:
        raise ValueError(
            f"partition.name = {partition!r}: task {task.name!r} has no class labels to divide; choose iid, quantity or natural"
        )
    return np.unique(task.labels, return_inverse=True)[1].reshape(-1)


def proportions(draw: np.random.Generator, alpha: float, base: np.ndarray) -> np.ndarray:
    """One draw of Dir(alpha * base): weights ``base`` (n,), all above 0 -> (n,) float64 that sum to 1.

    Where floating-point numbers fail, the distribution's limit stands in: all at one place (drawn by ``base``)
    for a tiny alpha, ``base`` itself for a huge one.
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
    """Shares (C,) that sum to 1 -> (n,) int64: the client of each of ``n`` samples in a row, C consecutive runs."""
    ends = np.append((np.cumsum(shares)[:-1] * n).astype(np.int64).clip(0, n), n)
    return np.repeat(np.arange(len(shares)), np.diff(ends, prepend=0))


def build(owner: np.ndarray, clients: int, seed: int, min_samples: int = 1) -> Partition:
    """From the owner of each sample (N,) to a Partition in which each client has ``min_samples`` or more.

    Too small clients are filled, in the order of their ids, with keyed samples of whichever client is the
    largest at that moment (the lowest id among equals). Warns when more than 5 % of the samples moved.
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
    gifts: dict[int, list[int]] = {int(c): [] for c in poor}
    moved = 0
    for c in poor.tolist():
        for _ in range(min_samples - int(sizes[c])):
            size, giver = largest[0]
            if giver not in stock:
                stock[giver] = parts[giver][rng.permutation(rng.key(seed, "repair", giver), len(parts[giver]))].tolist()
            gifts[c].append(stock[giver].pop())
            heapq.heapreplace(largest, (size + 1, giver))
            moved += 1
    for giver, left in stock.items():
        parts[giver] = np.sort(np.array(left, dtype=np.int64))
    for c, given in gifts.items():
        parts[c] = np.sort(np.append(parts[c], np.array(given, dtype=np.int64)))
    if moved > 0.05 * len(owner):
        warnings.warn(
            f"partition: {moved} of {len(owner)} samples ({moved / len(owner):.0%}) were moved to give each of {clients} clients "
            f"at least {min_samples}; the partition is more even than its parameters say",
            stacklevel=3,
        )
    return Partition.of(parts, moved)
