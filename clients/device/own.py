"""A partition as one device sees it: only its own samples are at hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_sim.population.partition import Partition

Said = Mapping[str, Any]


@dataclass(frozen=True)
class Own(Partition):
    """A partition as one of its clients sees it: the samples at hand are this client's, 0..n-1."""

    index: int
    """The client."""
    clients: int
    """How many there are."""
    train: int
    """Its training samples."""
    held_out: int
    """Its test samples, which follow the training samples."""

    def __len__(self) -> int:
        """All clients."""
        return self.clients

    def client(self, c: int) -> np.ndarray:
        """(n,) int64: 0..n-1. Raises ValueError for any other client."""
        self._check(c)
        return np.arange(self.train + self.held_out)

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples). Raises ValueError for any other client."""
        self._check(c)
        return self.train, self.held_out

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """One row: nothing is known of others."""
        return np.array([[self.train, self.held_out, 1]])

    def hold_out(self, share: float, seed: int) -> "Own":
        """It was divided where the samples were chosen."""
        raise NotImplementedError

    def _check(self, c: int) -> None:
        if c != self.index:
            raise ValueError(f"client {c}: this device is client {self.index}")
