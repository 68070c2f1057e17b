"""Partitions: which samples each virtual client owns. A client is an integer id, never an object with its own data.

A query to a partition takes time and memory for the clients in the query, not for all clients of the population.

Legend: N samples, C clients, n a client's samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fl_sim import rng

MANY = 50
"""Draws for each sample above which no sample is taken to be left out."""
TOGETHER = 1024
"""Clients whose indices are read at once."""


class Partition(ABC):
    """Which client owns which training samples. A client's indices are its training part, then its held-out part."""

    exclusive: ClassVar[bool] = True
    """Whether every sample has exactly one owner. False: clients share samples, and a client may own one repeatedly."""
    moved: int = 0
    """How many samples a partitioner moved between clients because some were empty or too small."""
    filled: int = 0
    """How many clients these were: each was given the samples that it lacked."""
    idle: Sequence[int] = ()
    """Ids, ascending, of clients that own no sample and never train; they keep their ids, and no other id shifts."""
    turns: int = 0
    """K where each client's samples lie in turns of K classes: p is of class p mod K, in both parts; 0: in any order.

    Such are the clients of ``Task.turns``; what they hold out is the same share of each class.
    """

    def working(self, first: int, end: int) -> Sequence[int]:
        """The ids of first..end-1 that are not ``idle``, ascending: a range where all are."""
        if not len(self.idle):
            return range(first, end)
        ids = np.setdiff1d(np.arange(first, end), np.asarray(self.idle), assume_unique=True)
        return [int(c) for c in ids]

    @staticmethod
    def of(parts: Sequence[np.ndarray], moved: int = 0, idle: Sequence[int] = (), filled: int = 0) -> "Listed":
        """A partition from one index array per client; only clients of ``idle`` may own no sample."""
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = np.concatenate(list(parts)).astype(np.int64) if len(parts) else np.empty(0, np.int64)
        return Listed(indices, starts, np.zeros(len(parts), np.int64), moved, tuple(idle), filled)

    @abstractmethod
    def __len__(self) -> int:
        """C, the number of clients."""

    @abstractmethod
    def client(self, c: int) -> np.ndarray:
        """(n,) int64: all indices of client ``c``, training part then held-out part. The same at every call."""

    def several(self, clients: Sequence[int]) -> list[np.ndarray]:
        """``client(c)`` for each of the given clients."""
        return [self.client(c) for c in clients]

    @abstractmethod
    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples) of client ``c``."""

    @abstractmethod
    def size_counts(self, first: int | None = None) -> np.ndarray:
        """Each pair of sizes that occurs, and how many clients have it.

        Parameters
        ----------
        first : int (default: all clients)
            Count the clients 0..first-1 only.

        Returns
        -------
        (K, 3) int64: training samples, held-out samples, clients of these sizes.
        """

    def training_rows(self, end: int) -> np.ndarray:
        """(n,) int64, ascending: the samples in the training parts of the clients 0..end-1.

        None is a held-out sample, nor, where ``end`` is the first of the clients that never train, one of theirs.
        Where clients share samples, an index occurs as often as clients own it.
        """
        parts = [np.empty(0, np.int64)]
        for first in range(0, end, TOGETHER):
            ids = self.working(first, min(first + TOGETHER, end))
            parts += [own[: self.sizes(c)[0]] for c, own in zip(ids, self.several(ids), strict=True)]
        return np.sort(np.concatenate(parts))

    def trained_on(self, end: int) -> np.ndarray:
        """(n,) int64, ascending: ``training_rows``, each once."""
        return np.unique(self.training_rows(end))

    @abstractmethod
    def hold_out(self, share: float, seed: int) -> "Partition":
        """A partition in which each client keeps a test part of its own, drawn by the key of ``seed``.

        The part is ``share`` of the client's samples, rounded, at least 1 and never all; a client of one sample holds
        out none. No client trains on a sample that another one holds out.
        """

    def hold_out_unseen(self, share: float, unseen: int, unseen_share: float, seed: int) -> "Partition":
        """``hold_out`` of ``share``, and of ``unseen_share`` for the ``unseen`` last clients, which never train.

        Raises ValueError where all clients of this kind of partition have one share.
        """
        raise ValueError(
            f"partition.unseen_held_out = {unseen_share}: in this kind of partition all clients hold out one share; "
            "set --partition.held_out instead"
        )


@dataclass(frozen=True)
class Listed(Partition):
    """A partition that stores all indices: 8 bytes per sample and 16 per client."""

    indices: np.ndarray
    """(N,) int64: the indices of all clients in order; of each its training part, then its held-out part."""
    starts: np.ndarray
    """(C + 1,) int64: client c owns ``indices[starts[c]:starts[c + 1]]``."""
    held_out: np.ndarray
    """(C,) int64: how many samples at the end of a client's range are held out as its own test part."""
    moved: int = 0
    idle: Sequence[int] = ()
    filled: int = 0
    turns: int = 0

    def __len__(self) -> int:
        """C, the number of clients."""
        return len(self.starts) - 1

    def client(self, c: int) -> np.ndarray:
        """All indices of client ``c``: training part, then held-out part."""
        return self.indices[self.starts[c] : self.starts[c + 1]]

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples) of client ``c``."""
        held = int(self.held_out[c])
        return int(self.starts[c + 1] - self.starts[c]) - held, held

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """See ``Partition.size_counts``."""
        held = self.held_out[:first]
        pairs = np.stack([np.diff(self.starts)[:first] - held, held], axis=1)
        kinds, counts = np.unique(pairs, axis=0, return_counts=True)
        return np.column_stack([kinds, counts])

    def training_rows(self, end: int) -> np.ndarray:
        """See ``Partition.training_rows``; without a loop over clients."""
        steps = np.zeros(int(self.starts[end]) + 1, np.int8)  # +1 where a training part begins, -1 where it ends
        np.add.at(steps, self.starts[:end], 1)
        np.add.at(steps, self.starts[1 : end + 1] - self.held_out[:end], -1)
        return np.sort(self.indices[: len(steps) - 1][np.cumsum(steps[:-1], dtype=np.int8) > 0].astype(np.int64))

    def hold_out(self, share: float, seed: int) -> "Listed":
        """See ``Partition.hold_out``: each client's samples are shuffled by a key, and the last ones held out."""
        return self.hold_out_unseen(share, 0, share, seed)

    def hold_out_unseen(self, share: float, unseen: int, unseen_share: float, seed: int) -> "Listed":
        """See ``Partition.hold_out_unseen``; a client's samples keep their order where none is held out."""
        if share == 0 and (unseen_share == 0 or not unseen):
            return self
        indices, held = self.indices.copy(), np.zeros(len(self), np.int64)
        first = len(self) - unseen
        for c in range(0 if share else first, len(self) if unseen_share else first):
            mine, key, own_share = self.client(c), rng.key(seed, "held-out", c), share if c < first else unseen_share
            order = in_turns(len(mine), self.turns, key) if self.turns else rng.permutation(key, len(mine))
            indices[self.starts[c] : self.starts[c + 1]] = mine[order]
            kinds = self.turns or 1
            held[c] = kinds * _rounded(own_share, len(mine) // kinds)
        return replace(self, indices=indices, held_out=held)


@dataclass(frozen=True)
class Resampled(Partition):
    """Clients of equal size whose samples are keyed draws with replacement.

    Draws are computed at each call, and nothing is stored per client.
    """

    samples: int
    """N: the number of samples to draw from."""
    clients: int
    """C: the number of clients."""
    per_client: int
    """Draws of each client, for its training part and its held-out part together."""
    seed: int
    """Seed of the draws."""
    held: int = 0
    """How many of a client's draws are its held-out part."""
    order: np.ndarray | None = None
    """(N,) int64: the samples for training, then those for held-out parts. None: nothing is held out."""
    test: int = 0
    """How many samples at the end of ``order`` are for held-out parts; no client trains on them."""

    exclusive: ClassVar[bool] = False

    def __len__(self) -> int:
        """C, the number of clients."""
        return self.clients

    def client(self, c: int) -> np.ndarray:
        """The draws of client ``c``. Every sample has the probability 1 / N, up to 2^-32."""
        return self.several([c])[0]

    def several(self, clients: Sequence[int]) -> list[np.ndarray]:
        """The draws of each of the given clients, computed together."""
        base = np.array(rng.key(self.seed, "resample"), np.uint64)
        words = rng.subkeys(rng.subkeys(base, np.array(clients))[:, None], np.arange(self.per_client)) >> np.uint64(32)
        if self.order is None:
            return list(_scaled(words, self.samples))
        train, split = self.samples - self.test, self.per_client - self.held
        return list(
            self.order[np.hstack([_scaled(words[:, :split], train), train + _scaled(words[:, split:], self.test)])]
        )

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples): the same for every client."""
        return self.per_client - self.held, self.held

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """See ``Partition.size_counts``: one row, since all clients have the same size."""
        count = self.clients if first is None else min(first, self.clients)
        return np.array([[*self.sizes(0), count]] if count else np.empty((0, 3)), dtype=np.int64)

    def trained_on(self, end: int) -> np.ndarray:
        """See ``Partition.trained_on``. Above MANY draws a sample it is all samples for training.

        One of them would then be missing with a probability below e^-MANY, and to find out takes a draw each.
        """
        pool = np.arange(self.samples) if self.order is None else np.sort(self.order[: self.samples - self.test])
        train = self.sizes(0)[0]
        if end * train > MANY * len(pool):
            return pool
        used = np.zeros(self.samples, bool)
        for first in range(0, end, 1000):
            for drawn in self.several(range(first, min(first + 1000, end))):
                used[drawn[:train]] = True
        return np.flatnonzero(used)

    def hold_out(self, share: float, seed: int) -> "Resampled":
        """See ``Partition.hold_out``: a keyed ``share`` of all samples is reserved for held-out parts.

        The same share of each client's draws comes from the reserved samples, the other draws from the rest. Both
        shares are rounded, at least 1 and never all. Nothing is held out where there is only one sample, or only one
        draw per client.
        """
        held, test = _rounded(share, self.per_client), _rounded(share, self.samples)
        if share == 0 or not held or not test:
            return self
        return replace(self, held=held, test=test, order=rng.permutation(rng.key(seed, "held-out"), self.samples))


def median(values: np.ndarray, counts: np.ndarray) -> float:
    """The median of ``values`` (K,), each of which occurs ``counts`` (K,) times, as columns of ``size_counts`` do."""
    order = np.argsort(values)
    ends = np.cumsum(counts[order])
    middle = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float(values[order][middle].mean())


def in_turns(n: int, turns: int, key: int) -> np.ndarray:
    """(n,) int64: the positions 0..n-1, which lie in turns of K classes, shuffled by ``key`` within each class.

    They lie in turns again. Raises ValueError unless n is a multiple of K.
    """
    if n % turns:
        raise ValueError(f"{n} samples do not lie in turns of {turns} classes: each class must have equally many")
    each = [rng.permutation(rng.key(key, "class", kind), n // turns) * turns + kind for kind in range(turns)]
    return np.stack(each, axis=1).reshape(-1)


def _rounded(share: float, n: int) -> int:
    """How many of ``n`` samples are held out: ``share`` of them, rounded, at least 1 and never all."""
    return 0 if n < 2 else min(max(round(share * n), 1), n - 1)


def _scaled(words: np.ndarray, n: int) -> np.ndarray:
    """Uniform words below 2^32 (uint64) -> uniform int64 numbers in 0..n-1; ``n`` is at most 2^32."""
    return ((words * np.uint64(n)) >> np.uint64(32)).astype(np.int64)
