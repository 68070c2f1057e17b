"""What the blocks of one round add up to, and what the round takes: pooling time, drift of the clients, memory."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

from fl_sim.engines.drift import DriftSums, merged
from fl_sim.engines.results import BlockResult

MEGABYTE = 1e6
"""Bytes."""
STATM = Path("/proc/self/statm")
"""Linux's file of this process's memory, in pages: its second number is the resident part."""


class RoundWork:
    """Sums over the blocks of one round."""

    def __init__(self) -> None:
        self.places = self.samples = 0
        self.pool_seconds = 0.0
        self.drift: DriftSums | None = None
        self._waited = 0.0

    def add(self, result: BlockResult) -> None:
        """Count a block that has answered."""
        self.places, self.samples = self.places + result.places, self.samples + result.samples
        self.pool_seconds += result.pool_seconds
        self.drift = merged(self.drift, result.drift)
        result.drift = None

    def pooled(self, hook: Callable[[str, Any], Any], replies: Iterable[Any]) -> Any:
        """``hook("aggregate_train", replies)``, timed; the time in which it waits for a reply is not counted.

        A list stays one: strategies of Flower get one.
        """
        start = time.perf_counter()
        result = hook("aggregate_train", replies if isinstance(replies, list) else self._timed(replies))
        self.pool_seconds += time.perf_counter() - start - self._waited
        return result

    def _timed(self, replies: Iterable[Message]) -> Iterator[Message]:
        begin = time.perf_counter()
        for reply in replies:
            self._waited += time.perf_counter() - begin
            yield reply
            begin = time.perf_counter()
        self._waited += time.perf_counter() - begin

    def columns(self) -> dict[str, object]:
        """``pool_seconds``, and where clients' updates were added up ``drift`` and ``cosine``."""
        return {"pool_seconds": self.pool_seconds, **(self.drift.columns() if self.drift is not None else {})}


class Memory:
    """Tells what ``memory`` finds, which it reads at most once in ``every`` seconds."""

    def __init__(self, every: float = 0.0) -> None:
        self.every = every
        self._read, self._found = -math.inf, dict[str, object]()

    def __call__(self) -> dict[str, object]:
        """The memory, as of at most ``every`` seconds ago."""
        now = time.monotonic()
        if now - self._read >= self.every:
            self._read, self._found = now, memory()
        return self._found


def memory() -> dict[str, object]:
    """``rss_mb``, this process's resident memory now, and ``gpu_mb``, the most that PyTorch has used of its GPU so far.

    The first is missing where the system does not tell (only Linux does), the second where no GPU is in use.
    """
    found: dict[str, object] = {}
    with suppress(OSError, ValueError, IndexError):
        found["rss_mb"] = int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["gpu_mb"] = torch.cuda.max_memory_allocated() / MEGABYTE
    return found
