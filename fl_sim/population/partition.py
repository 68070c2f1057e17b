"""Virtual clients: an id, and where its samples lie. A client is never an object with data of its own. No paper.

What is asked of a partition costs time and memory for the clients asked about, not for all that are registered.

Legend: N samples, C clients, n a client's samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fl_sim import rng


class Partition(ABC):
    """Who owns which training samples. A client's indices are its training part, then its held-out part."""

    exclusive: ClassVar[bool] = True
    """Whether every sample has exactly one owner. False: clients share samples, and a client may have one twice."""
    moved: int = 0
    """Samples that a partitioner moved to repair empty or too small clients."""

    @staticmethod
    def of(parts: Sequence[np.ndarray], moved: int = 0) -> "Listed":
        """From one index array a client."""
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = np.concatenate(list(parts)).astype(np.int64) if len(parts) else np.empty(0, np.int64)
        return Listed(indices, starts, np.zeros(len(parts), np.int64), moved)

    @abstractmethod
    def __len__(self) -> int:
        """C."""

    @abstractmethod
    def client(self, c: int) -> np.ndarray:
        """(n,) int64: all of client c's indices: training part, then held-out part. The same at every call."""

    def several(self, clients: Sequence[int]) -> list[np.ndarray]:
        """``client(c)`` of each of some clients."""
        return [self.client(c) for c in clients]

    @abstractmethod
    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples) of client c."""

    @abstractmethod
    def size_counts(self, first: int | None = None) -> np.ndarray:
        """(K, 3) int64: each (training samples, held-out samples) that occurs, and how many of the ``first`` clients have it.

        ``first`` : None means all.
        """

    @abstractmethod
    def hold_out(self, share: float, seed: int) -> "Partition":
        """Each client's own test part: a keyed ``share`` of its samples, rounded, at least 1, never all; none of a lone sample.

        No client trains on a sample that another one holds out.
        """


@dataclass(frozen=True)
class Listed(Partition):
    """Every client's indices, written down: 8 bytes a sample, 16 a client."""

    indices: np.ndarray
    """(N,) int64: client after client; each one's training part, then its held-out part."""
    starts: np.ndarray
    """(C + 1,) int64: client c owns ``indices[starts[c]:starts[c + 1]]``."""
    held_out: np.ndarray
    """(C,) int64: how many at the end of a client's range are its own test samples."""
    moved: int = 0

    def __len__(self) -> int:
        """C."""
        return len(self.starts) - 1

    def client(self, c: int) -> np.ndarray:
        """All of client c's indices: training part, then held-out part."""
        return self.indices[self.starts[c] : self.starts[c + 1]]

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples) of client c."""
        held = int(self.held_out[c])
        return int(self.starts[c + 1] - self.starts[c]) - held, held

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """See ``Partition.size_counts``."""
        held = self.held_out[:first]
        pairs = np.stack([np.diff(self.starts)[:first] - held, held], axis=1)
        kinds, counts = np.unique(pairs, axis=0, return_counts=True)
        return np.column_stack([kinds, counts])

    def hold_out(self, share: float, seed: int) -> "Listed":
        """Each client's own test part: a keyed ``share`` of its samples, rounded, at least 1, never all; none of a lone sample."""
        if share == 0:
            return self
        indices, held = self.indices.copy(), np.zeros(len(self), np.int64)
        for c in range(len(self)):
            mine = self.client(c)
            order = rng.permutation(rng.key(seed, "held-out", c), len(mine))
            indices[self.starts[c] : self.starts[c + 1]] = mine[order]
            held[c] = _rounded(share, len(mine))
        return replace(self, indices=indices, held_out=held)


@dataclass(frozen=True)
class Resampled(Partition):
    """Clients of equal size whose samples are keyed draws with replacement, made when they are asked for: nothing is kept of a client."""

    samples: int
    """N: how many samples there are to draw from."""
    clients: int
    """C."""
    per_client: int
    """Samples that each client draws, training and held-out ones together."""
    seed: int
    """Keys the draws."""
    held: int = 0
    """How many of a client's draws are its own test samples."""
    order: np.ndarray | None = None
    """(N,) int64: the samples that clients train on, then those held out; None: nothing is held out."""
    test: int = 0
    """How many at the end of ``order`` are never trained on: test parts are drawn from these."""

    exclusive: ClassVar[bool] = False

    def __len__(self) -> int:
        """C."""
        return self.clients

    def client(self, c: int) -> np.ndarray:
        """Client c's draws. A sample's probability is 1 / N to 2^-32."""
        return self.several([c])[0]

    def several(self, clients: Sequence[int]) -> list[np.ndarray]:
        """All their draws at once."""
        base = np.array(rng.key(self.seed, "resample"), np.uint64)
        words = rng.below(rng.below(base, np.array(clients))[:, None], np.arange(self.per_client)) >> np.uint64(32)
        if self.order is None:
            return list(_scaled(words, self.samples))
        train, split = self.samples - self.test, self.per_client - self.held
        return list(
            self.order[np.hstack([_scaled(words[:, :split], train), train + _scaled(words[:, split:], self.test)])]
        )

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples): of every client the same."""
        return self.per_client - self.held, self.held

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """See ``Partition.size_counts``: one row."""
        count = self.clients if first is None else min(first, self.clients)
        return np.array([[*self.sizes(0), count]] if count else np.empty((0, 3)), dtype=np.int64)

    def hold_out(self, share: float, seed: int) -> "Resampled":
        """A keyed ``share`` of the samples is set apart; that share of a client's draws comes from these, the rest from the others.

        Samples and draws are rounded, at least 1, never all. A lone draw, or a lone sample, holds nothing out.
        """
        held, test = _rounded(share, self.per_client), _rounded(share, self.samples)
        if share == 0 or not held or not test:
            return self
        return replace(self, held=held, test=test, order=rng.permutation(rng.key(seed, "held-out"), self.samples))


def median(values: np.ndarray, counts: np.ndarray) -> float:
    """The median of ``values`` (K,), each occurring ``counts`` (K,) times: of columns of ``size_counts``."""
    order = np.argsort(values)
    ends = np.cumsum(counts[order])
    middle = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float(values[order][middle].mean())


def _rounded(share: float, n: int) -> int:
    """How many of ``n`` are held out."""
    return 0 if n < 2 else min(max(round(share * n), 1), n - 1)


def _scaled(words: np.ndarray, n: int) -> np.ndarray:
    """Words below 2^32, uint64 -> int64 in 0..n-1, each as likely as the next; n is at most 2^32."""
    return ((words * np.uint64(n)) >> np.uint64(32)).astype(np.int64)
