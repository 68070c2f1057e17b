"""What a model adapts to: small tasks, each with samples to adapt on (support) and others to judge by (query).

Legend: n samples, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fl_sim import Task, rng
from fl_sim.errors import ConfigError
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Episode:
    """One task to adapt to: indices of samples, and their classes in it."""

    name: str
    rows: np.ndarray
    """(n,) int64: its samples."""
    classes: np.ndarray
    """(n,) int64: the class of each; all 0 in a regression."""
    key: int
    """Keys which samples are support and which query."""

    def parts(self, shots: int, most: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
        """(places of support, places of query) among ``rows``.

        Support are ``shots`` samples of each class, or as many as there are. Query are ``queries`` (0: all) of those
        that no number of shots up to ``most`` takes; of a class with few samples, half are query. More shots take the
        samples of fewer shots, and query stays the same.
        """
        support, query = list[np.ndarray](), list[np.ndarray]()
        for kind in np.unique(self.classes):
            own = np.flatnonzero(self.classes == kind)
            own = own[rng.permutation(rng.key(self.key, "class", int(kind)), len(own))]
            held = max(len(own) - most, len(own) // 2)
            support.append(own[: len(own) - held][:shots])
            query.append(own[len(own) - held :][: queries or None])
        return np.concatenate(support), np.concatenate(query)


def is_classified(task: Task) -> bool:
    """Whether the targets are classes, one a sample."""
    y = task.train["y"]
    return y.ndim == 1 and not y.is_floating_point() and not y.is_complex()


def of_clients(task: Task, partition: Partition, clients: Sequence[int], seed: int) -> list[Episode]:
    """An episode of all samples of each client."""
    found = []
    for c in clients:
        rows = partition.client(c)
        y = task.train["y"][torch.from_numpy(rows)].numpy() if is_classified(task) else np.zeros(len(rows), np.int64)
        found.append(Episode(f"client {c}", rows, y, rng.key(seed, "adapt", c)))
    return found


def of_classes(task: Task, ways: int, count: int, seed: int) -> list[Episode]:
    """``count`` episodes of ``ways`` classes each, drawn by a key and numbered from 0, with all of their samples.

    Raises ConfigError for a task without classes, and for more ways than it has.
    """
    if not is_classified(task):
        raise ConfigError(f"task.name = {task.name!r}: has no classes to draw episodes of; give --partition iid")
    y = task.train["y"].numpy()
    known = np.unique(y)
    if not 1 < ways <= len(known):
        raise ConfigError(f"ways = {ways}: task {task.name!r} has {len(known)} classes; choose 2..{len(known)}")
    return list(_drawn(y, known, ways, count, seed))


def _drawn(y: np.ndarray, known: np.ndarray, ways: int, count: int, seed: int) -> Iterator[Episode]:
    for e in range(count):
        key = rng.key(seed, "adapt-episode", e)
        chosen = known[rng.sample(key, len(known), ways)]
        rows = [np.flatnonzero(y == kind) for kind in chosen]
        classes = np.repeat(np.arange(ways), [len(own) for own in rows])
        yield Episode(f"episode {e}", np.concatenate(rows), classes, rng.key(key, "samples"))


def samples(task: Task, episode: Episode, places: np.ndarray) -> Tree:
    """The samples at ``places`` of an episode, with the classes that they have in it."""
    rows = torch.from_numpy(episode.rows[places])
    data = {k: v[rows] for k, v in task.train.items()}
    if is_classified(task):
        data["y"] = torch.from_numpy(episode.classes[places])
    return data
