"""Tells where an app draws from the operating system or reads the clock, so that its digest may differ from run to run.

Draws from the global generators of Python, NumPy and PyTorch are keyed; generators that an app makes without a seed,
secrets and clocks are its own.
"""

import inspect
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_sim import rng

CLOCKS = ("time", "time_ns", "perf_counter", "monotonic")
"""Functions of ``time`` that are watched, where the app's own code calls them."""
RANDOM, CLOCK = "draws from the operating system's randomness, without a seed", "reads the clock"


@contextmanager
def watched(folder: Path, found: dict[str, str]) -> Iterator[None]:
    """While open, code in ``folder`` is watched; ``found`` gets what it does -> the first place, as ``file:line``."""
    replaced: list[tuple[Any, str, Any]] = [
        *((module, name, lambda old: _noting(old, found, RANDOM, folder, 0)) for module, name in rng.ENTROPY),
        *((time, name, lambda old: _noting(old, found, CLOCK, folder, 1)) for name in CLOCKS),
    ]
    before = [vars(module)[name] for module, name, _ in replaced]
    try:
        for (module, name, make), old in zip(replaced, before, strict=True):
            setattr(module, name, make(old))
        yield
    finally:
        for (module, name, _), old in zip(replaced, before, strict=True):
            setattr(module, name, old)


def _noting(
    old: Callable[..., Any], found: dict[str, str], what: str, folder: Path, nearest: int
) -> Callable[..., Any]:
    """``old``, which notes the caller in ``folder``; ``nearest``: only the direct caller counts (0: any)."""

    def call(*args: Any) -> Any:
        if what not in found:
            for depth, (frame, line) in enumerate(traceback.walk_stack(inspect.currentframe())):
                if nearest and depth > nearest:
                    break
                if frame.f_code.co_filename.startswith(f"{folder}{os.sep}"):
                    found[what] = f"{Path(frame.f_code.co_filename).relative_to(folder)}:{line}"
                    break
        return old(*args)

    return call
