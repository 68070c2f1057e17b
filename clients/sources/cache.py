"""Samples decoded once, memory-mapped after. No paper.

Kept below FL_SIM_CACHE (default: ``fl-sim`` in the user's cache folder), one folder for each state of the source
files, written whole and then renamed: several processes may do it at once, and other source files never meet an old
cache.

Legend: N samples.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
"""``train_x``, ``test_x`` (N, channels, height, width) uint8; ``train_y``, ``test_y`` (N,) int64."""

log = logging.getLogger(__name__)

_FORMAT = 1
"""Counted up when decoding changes, so that no old cache is taken for a new one."""


@dataclass(frozen=True)
class Source:
    """Files that hold a data set, and how to decode them."""

    folder: Path
    """Where they lie."""
    files: tuple[Path, ...]
    """All that the decoded arrays depend on."""
    decode: Callable[[], Arrays]
    """Reads the files. Raises ValueError that names the file."""
    variant: str = ""
    """What else the arrays depend on: a size in pixels."""


def cache_folder() -> Path:
    """FL_SIM_CACHE, or else ``fl-sim`` in the user's cache folder. Not created."""
    named = os.environ.get("FL_SIM_CACHE")
    return (
        Path(named).expanduser()
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fl-sim"
    )


def cached(task: str, source: Source) -> Arrays:
    """The source's arrays, memory-mapped read-only; decoded when the cache has none for this path, size and time of change.

    Warns, and keeps the arrays in memory, where the cache cannot be written.
    """
    stamp = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files]
    folder = (
        cache_folder()
        / f"{task}-{hashlib.sha256(json.dumps([_FORMAT, source.variant, stamp]).encode()).hexdigest()[:16]}"
    )
    if (known := _mapped(folder)) is not None:
        return known
    log.info("%s: decoding %s once, into %s", task, source.folder, folder)
    arrays = source.decode()
    try:
        with staged(folder, lambda: _mapped(folder) is not None) as stage:
            for name, array in arrays.items():
                np.save(stage / f"{name}.npy", array)
    except OSError as error:
        warnings.warn(
            f"FL_SIM_CACHE = {str(cache_folder())!r}: cannot be written ({error}); {task} is decoded anew each time",
            stacklevel=2,
        )
        return arrays
    return _mapped(folder) or arrays


def _mapped(folder: Path) -> Arrays | None:
    """What a cache folder holds; None where it is missing or damaged."""
    try:
        return {
            f"{split}_{name}": np.load(folder / f"{split}_{name}.npy", mmap_mode="r" if name == "x" else None)
            for split in ("train", "test")
            for name in ("x", "y")
        }
    except (OSError, ValueError, EOFError):
        return None


@contextmanager
def staged(target: Path, good: Callable[[], bool]) -> Iterator[Path]:
    """A new folder beside ``target`` that becomes it in one step when all went well, unless another process was faster."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield stage
        if not good():
            shutil.rmtree(target, ignore_errors=True)  # a damaged one
            try:
                stage.rename(target)
            except OSError:
                if not good():
                    raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
