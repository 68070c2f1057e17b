"""Virtual clients as index ranges: an id and where its samples lie. A client is never an object with data of its own.

Legend: N samples, C clients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fl_sim import rng


@dataclass(frozen=True)
class Partition:
    """Who owns which training samples."""

    indices: np.ndarray
    """(N,) int64: client after client; each one's training part, then its held-out part."""
    starts: np.ndarray
    """(C + 1,) int64: client c owns ``indices[starts[c]:starts[c + 1]]``."""
    held_out: np.ndarray
    """(C,) int64: how many at the end of a client's range are its own test samples."""
    moved: int = 0
    """Samples that a partitioner moved to repair empty or too small clients."""

    @classmethod
    def of(cls, parts: Sequence[np.ndarray], moved: int = 0) -> "Partition":
        """From one index array a client."""
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices = np.concatenate(list(parts)).astype(np.int64) if len(parts) else np.empty(0, np.int64)
        return cls(indices, starts, np.zeros(len(parts), np.int64), moved)

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

    def hold_out(self, share: float, seed: int) -> "Partition":
        """Each client's own test part: a keyed ``share`` of its samples, rounded, at least 1, never all; none of a lone sample."""
        if share == 0:
            return self
        indices, held = self.indices.copy(), np.zeros(len(self), np.int64)
        for c in range(len(self)):
            mine = self.client(c)
            order = rng.permutation(rng.key(seed, "held-out", c), len(mine))
            indices[self.starts[c] : self.starts[c + 1]] = mine[order]
            held[c] = 0 if len(mine) < 2 else min(max(round(share * len(mine)), 1), len(mine) - 1)
        return replace(self, indices=indices, held_out=held)
