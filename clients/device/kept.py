"""A device's samples, kept on its disk between messages."""

import functools
import hashlib
import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import fl_sim
from clients.device.own import Own, Said
from clients.sources import cache
from fl_sim.learning.task import Task


def kept(said: Said, client: int, make: Any) -> tuple[Task, Own]:
    """``make()``, once for these settings and this code; a task that cannot be pickled is made each time."""
    decides = {k: v for k, v in said.items() if k.partition(".")[0] in ("task", "partition", "task-clients", "clients")}
    decides |= {k: said.get(k) for k in ("validation", "standardize", "augment")}
    key = hashlib.sha256(
        json.dumps([client, sorted(decides.items()), _code(*(str(said[k]) for k in ("task", "partition")))]).encode()
    )
    folder = cache.cache_folder() / f"device-{key.hexdigest()[:16]}"
    known = _unpickled(folder)
    if known is not None:
        return known
    made: tuple[Task, Own] = make()
    try:
        text = pickle.dumps(made)
        with cache.staged(folder, lambda: _unpickled(folder) is not None) as stage:
            (stage / "own.pickle").write_bytes(text)
    except (
        OSError,
        pickle.PicklingError,
        AttributeError,
        TypeError,
    ):  # a disk that is full, a task with functions of its own
        pass
    return made


def _unpickled(folder: Path) -> tuple[Task, Own] | None:
    """What this device wrote itself; None where it is missing or damaged."""
    try:
        made: tuple[Task, Own] = pickle.loads((folder / "own.pickle").read_bytes())
    except Exception:
        return None
    return made


@functools.cache
def _code(*names: str) -> str:
    """A hash of all code that decides who owns what, so that no cache outlives it; ``names`` may point at a user's modules."""
    folders = [Path(str(package.__file__)).parent for package in (fl_sim, importlib.import_module("clients"))]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    for name in names:
        if ":" in name and (file := importlib.import_module(name.partition(":")[0]).__file__):
            files.append(Path(file))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
