"""Tells where an app draws from the operating system or reads the clock, so that its digest may differ from run to run.

Draws from the global generators of Python, NumPy and PyTorch are keyed; generators that an app makes without a seed,
secrets and clocks are its own. What is called through a module is noticed when it is called; what cannot be replaced
(``datetime``, names that the app has imported from ``time``) is found in the source of the app's modules.
"""

import ast
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fl_sim import rng

CLOCKS = ("time", "time_ns", "perf_counter", "monotonic")
"""Functions of ``time`` that are watched, where the app's own code calls them."""
UNSEEN_CLOCKS = {
    *(f"datetime.{kind}" for kind in ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")),
    *(f"time.{name}" for name in CLOCKS),
}
"""Calls that are found in the source."""
IMPORTING = "<frozen importlib"
"""Beginning of the file names of frames that import a module."""
RANDOM, CLOCK = "draws from the operating system's randomness, without a seed", "reads the clock"


@contextmanager
def watched(folder: Path, found: dict[str, str]) -> Iterator[None]:
    """While open, code in ``folder`` is watched; ``found`` gets what it does -> the first place, as ``file:line``."""
    replaced: list[tuple[Any, str, Any]] = [
        *((module, name, lambda old: _noting(old, found, RANDOM, folder, 0)) for module, name in rng.ENTROPY),
        *((time, name, lambda old: _noting(old, found, CLOCK, folder, 1)) for name in CLOCKS),
        *((place, name, partial(_noting_no_seed, found, folder, depth)) for place, name, depth in rng.SEEDERS),
    ]
    before = [vars(module)[name] for module, name, _ in replaced]
    try:
        for (module, name, make), old in zip(replaced, before, strict=True):
            setattr(module, name, make(old))
        yield
    finally:
        for (module, name, _), old in zip(replaced, before, strict=True):
            setattr(module, name, old)
        if CLOCK not in found and (place := _clock_in_source(folder)):
            found[CLOCK] = place


def _noting_no_seed(found: dict[str, str], folder: Path, depth: int, old: Callable[..., Any]) -> Callable[..., Any]:
    """``old``, which seeds a generator, and which notes the caller where it is given no seed."""
    note = _noting(lambda: None, found, RANDOM, folder, depth)

    def seed(*args: Any, **more: Any) -> Any:
        given = [*(a for a in args if not isinstance(a, rng.SEEDERS[0][0])), *more.values()]
        if not given or given[0] is None:
            note()
        return old(*args, **more)

    return seed


def _clock_in_source(folder: Path) -> str:
    """The first call of ``UNSEEN_CLOCKS`` in the app's imported modules, as ``file:line``; "" where there is none."""
    files = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
    own = (file for file in files if file.startswith(f"{folder}{os.sep}") and "site-packages" not in file)
    for file in sorted(file for file in own if file.endswith(".py")):
        nodes = list(ast.walk(ast.parse(Path(file).read_bytes())))
        names: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.Call):
                first, _, rest = ast.unparse(node.func).partition(".")
                called = ".".join(filter(None, (names.get(first, ""), rest)))
                if called in UNSEEN_CLOCKS and not (called.startswith("time.") and rest):
                    return f"{Path(file).relative_to(folder)}:{node.lineno}"
    return ""


def _noting(
    old: Callable[..., Any], found: dict[str, str], what: str, folder: Path, nearest: int
) -> Callable[..., Any]:
    """``old``, which notes the caller in ``folder``; ``nearest``: only the direct caller counts (0: any)."""

    def call(*args: Any) -> Any:
        if what not in found:
            for depth, (frame, line) in enumerate(traceback.walk_stack(inspect.currentframe())):
                if (nearest and depth > nearest) or frame.f_code.co_filename.startswith(IMPORTING):
                    break  # what a library draws while it is imported is no draw of the app's
                if frame.f_code.co_filename.startswith(f"{folder}{os.sep}"):
                    found[what] = f"{Path(frame.f_code.co_filename).relative_to(folder)}:{line}"
                    break
        return old(*args)

    return call
