"""A partition as one device sees it: only the device's own samples are available."""

from dataclasses import dataclass

import numpy as np

from fl_sim.population.partition import Partition


@dataclass(frozen=True)
class DevicePartition(Partition):
    """The partition of a device that holds the samples of one client only, with the indices 0..n-1."""

    index: int
    """Id of this device's client."""
    clients: int
    """Number of all clients."""
    train: int
    """Number of training samples of this client."""
    held_out: int
    """Number of its held-out samples, which follow the training samples."""
    turns: int = 0

    def __len__(self) -> int:
        """The number of all clients."""
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
        """One row for this client: the sizes of other clients are unknown."""
        return np.array([[self.train, self.held_out, 1]])

    def hold_out(self, share: float, seed: int) -> "DevicePartition":
        """Not available, raises NotImplementedError: the held-out part was chosen together with the samples."""
        raise NotImplementedError("a device's held-out part is chosen together with its samples (clients/shares.py)")

    def _check(self, c: int) -> None:
        if c != self.index:
            raise ValueError(f"client {c}: this device is client {self.index}")
