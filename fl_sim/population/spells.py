"""When devices are there: spells of availability, keyed or recorded.

Legend: n clients that are asked about; m clients with spells, s spells of all of them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

NEVER = 2**62
"""The instant (nanoseconds) of what does not happen."""


class Spells(Protocol):
    """When each device is there."""

    @property
    def told(self) -> str:
        """Where the spells come from, for errors, such as ``profile.on = 3, profile.off = 9``."""
        ...

    def available(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) bool: whether each device is there at ``now`` (nanoseconds)."""
        ...

    def comes(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) int64: when each device is there next, not before ``now``; ``NEVER`` where it never is again."""
        ...


@dataclass(frozen=True)
class RecordedSpells:
    """Spells from a trace: [start, end) in nanoseconds, those of one client in ascending order without overlaps."""

    told: str
    """Where they come from, for errors."""
    clients: np.ndarray
    """(m,) int64, ascending: clients that have spells; the others are never there."""
    first: np.ndarray
    """(m + 1,) int64: the spells of ``clients[i]`` are those from ``first[i]`` up to ``first[i + 1]``."""
    starts: np.ndarray
    """(s,) int64."""
    ends: np.ndarray
    """(s,) int64."""
    period: int = 0
    """Nanoseconds after which the trace begins again; 0: it ends."""

    def available(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) bool: whether each device is there at ``now`` (nanoseconds)."""
        _, phase = self._phase(now)
        spell, found = self._next(clients, phase)
        return np.asarray(found & (self.starts[spell] <= phase))

    def comes(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) int64: when each device is there next, not before ``now``; ``NEVER`` where it never is again."""
        begun, phase = self._phase(now)
        spell, found = self._next(clients, phase)
        later = np.maximum(begun + self.starts[spell], now)
        if not self.period:
            return np.where(found, later, NEVER)
        place, known = self._place(clients)
        again = begun + self.period + self.starts[self.first[place]]
        return np.where(found, later, np.where(known, again, NEVER))

    def _phase(self, now: int) -> tuple[int, int]:
        """(when the trace began last, nanoseconds since then)."""
        phase = now % self.period if self.period else now
        return now - phase, phase

    def _place(self, clients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n,) the place of each client in ``self.clients``, (n,) whether it is there)."""
        place = np.minimum(np.searchsorted(self.clients, clients), len(self.clients) - 1)
        return place, self.clients[place] == clients

    def _next(self, clients: np.ndarray, phase: int) -> tuple[np.ndarray, np.ndarray]:
        """((n,) the first spell of each client that ends after ``phase``, (n,) whether it has one): bisection."""
        place, known = self._place(clients)
        low, last = self.first[place], self.first[place + 1]
        high = last.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            over = self.ends[np.minimum(middle, len(self.ends) - 1)] <= phase
            low, high = np.where(open_ & over, middle + 1, low), np.where(open_ & ~over, middle, high)
        return np.minimum(low, len(self.ends) - 1), known & (low < last)
