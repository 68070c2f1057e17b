"""A cache of decoded samples on disk: a data set is decoded once, later uses map the files into memory.

The cache is in the folder FL_SIM_CACHE (default: ``fl-sim`` in the user's cache folder), with one folder for each state
of the source files. A folder is written completely and then renamed, so that several processes may do this at the same
time; changed source files never meet an old cache. The file ``checksums.json`` in it has the CRC-32 of each other file,
which is compared when the cache is opened (154 MB in about 0.1 s).

Legend: N samples.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
"""``train_x``, ``test_x`` (N, channels, height, width) uint8 or float32; ``train_y``, ``test_y`` (N,) int64.

Where there are any: ``classes`` (outputs,) text, names of classes; ``notes`` text, what was decided about samples.
"""

TEXTS = ("classes", "notes")
"""Arrays of text, which a data set may lack."""

log = logging.getLogger(__name__)

_FORMAT = 2
"""Version of the decoding. Increment it when decoding changes, so that old caches are not used."""
_LAYOUT, _CHECKSUMS = 2, "checksums.json"
"""Version of the files in a cache folder, and the file that names it. A folder of another layout is written anew."""


class DamagedCache(ValueError):
    """A cache folder whose files are not those that were written."""


@dataclass(frozen=True)
class Source:
    """Files that hold a data set, and how to decode them."""

    folder: Path
    """The folder of the files."""
    files: tuple[Path, ...]
    """All files that the decoded arrays depend on."""
    decode: Callable[[], Arrays]
    """Reads the files. Raises ValueError that names a file if it is damaged."""
    variant: str = ""
    """Further options that the arrays depend on, such as a size in pixels."""
    notes: tuple[str, ...] = ()
    """What was decided while the files were searched; it is not cached."""


def cache_folder() -> Path:
    """The folder FL_SIM_CACHE, or else ``fl-sim`` in the user's cache folder. It is not created here."""
    named = os.environ.get("FL_SIM_CACHE")
    return (
        Path(named).expanduser()
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fl-sim"
    )


def cached(task: str, source: Source) -> Arrays:
    """The source's arrays, mapped into memory read-only.

    They are decoded unless the cache has them for the same paths, sizes and modification times of the files. If the
    cache cannot be written, a warning is given and the arrays are in memory.

    Parameters
    ----------
    task : str
        Name of the task, used in the names of cache folders.
    source : Source
        The files and how to decode them.
    """
    stamp = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files]
    key = hashlib.sha256(json.dumps([_FORMAT, source.variant, stamp]).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{task}-{key}"
    try:
        if (known := _mapped(folder)) is not None:
            return known
    except DamagedCache as error:
        what = f"{error}; {task} is decoded anew from {source.folder}"
        warnings.warn(f"FL_SIM_CACHE = {str(cache_folder())!r}: {what}", stacklevel=2)
    log.info("%s: decoding %s once, into %s", task, source.folder, folder)
    arrays = source.decode()
    try:
        with staged(folder, lambda: _is_good(folder)) as stage:
            for name, array in arrays.items():
                np.save(stage / f"{name}.npy", array, allow_pickle=False)
            files = {file.name: _checksum(file) for file in sorted(stage.iterdir())}
            (stage / _CHECKSUMS).write_text(json.dumps({"layout": _LAYOUT, "crc32": files}), encoding="utf-8")
    except OSError as error:
        warnings.warn(
            f"FL_SIM_CACHE = {str(cache_folder())!r}: cannot be written ({error}); {task} is decoded anew each time",
            stacklevel=2,
        )
        return arrays
    try:
        return _mapped(folder) or arrays
    except DamagedCache:  # by another process in the meantime
        return arrays


def with_notes(arrays: Arrays, notes: Sequence[str]) -> Arrays:
    """The arrays with ``notes`` before those that they have; unchanged if there are none."""
    found = [*notes, *arrays.get("notes", np.array([], dtype=str)).tolist()]
    return {**arrays, "notes": np.array(found)} if found else arrays


def _mapped(folder: Path) -> Arrays | None:
    """The arrays in a cache folder; None if it is missing or of an older layout. Raises DamagedCache."""
    try:
        facts = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        if facts["layout"] != _LAYOUT:
            return None
        for name, checksum in facts["crc32"].items():
            if _checksum(folder / name) != checksum:
                raise DamagedCache(f"the cache {folder} is damaged: {name} has another checksum")
        found = {
            f"{split}_{name}": np.load(
                folder / f"{split}_{name}.npy", mmap_mode="r" if name == "x" else None, allow_pickle=False
            )
            for split in ("train", "test")
            for name in ("x", "y")
        }
        return found | {
            name: np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in TEXTS
            if f"{name}.npy" in facts["crc32"]
        }
    except NotADirectoryError:
        return None
    except FileNotFoundError as error:
        if not (folder / _CHECKSUMS).exists():
            return None
        raise DamagedCache(f"the cache {folder} is damaged: it lacks {Path(error.filename).name}") from error
    except DamagedCache:
        raise
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise DamagedCache(f"the cache {folder} cannot be read ({type(error).__name__}: {error})") from error


def _is_good(folder: Path) -> bool:
    """Whether a cache folder is there and undamaged."""
    try:
        return _mapped(folder) is not None
    except DamagedCache:
        return False


def _checksum(file: Path) -> int:
    """The CRC-32 of a file, which is mapped into memory: on a processor of 2020, 2 GB a second."""
    return zlib.crc32(np.memmap(file, np.uint8, "r").data) if file.stat().st_size else 0


@contextmanager
def staged(target: Path, good: Callable[[], bool]) -> Iterator[Path]:
    """Context manager: a new temporary folder that is renamed to ``target`` on success.

    Parameters
    ----------
    target : Path
        The folder to create. A damaged one is replaced.
    good : Callable
        Whether ``target`` exists and is complete: then another process was faster, and the temporary folder is deleted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield stage
        if not good():
            shutil.rmtree(target, ignore_errors=True)  # It is missing or damaged.
            try:
                stage.rename(target)
            except OSError:
                if not good():
                    raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
