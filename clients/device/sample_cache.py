"""A cache of a device's samples on its disk.

Each message is answered by a new process, which would otherwise compute the samples again.
"""

import functools
import hashlib
import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import fl_sim
from clients.device.partition import DevicePartition
from clients.device.spec import ExperimentSpec
from clients.sources import cache
from fl_sim.learning.arrays import say
from fl_sim.learning.task import Task

Samples = tuple[Task, DevicePartition]
"""A task on the samples of one client, and the client's partition."""


def cached_samples(spec: ExperimentSpec, client: int, compute: Callable[[], Samples]) -> Samples:
    """The result of ``compute()``, from the cache if it is there for this experiment, client and version of the code.

    Where the disk is full or read-only, and for a task that cannot be pickled, samples are computed each time; a note
    on stderr says so.
    """
    prefixes = ("task", "partition", "task-clients", "clients")
    relevant = {k: v for k, v in spec.items() if k.partition(".")[0] in prefixes}
    relevant |= {k: spec.get(k) for k in ("validation", "standardize", "augment")}
    code = _code_hash(*(str(spec[k]) for k in ("task", "partition")))
    key = hashlib.sha256(json.dumps([client, sorted(relevant.items()), code]).encode())
    folder = cache.cache_folder() / f"device-{key.hexdigest()[:16]}"
    known = _load(folder)
    if known is not None:
        return known
    samples = compute()
    try:
        data = pickle.dumps(samples)
        with cache.staged(folder, lambda: _load(folder) is not None) as stage:
            (stage / "own.pickle").write_bytes(data)
    except (OSError, pickle.PicklingError, AttributeError, TypeError) as error:  # the last three: local functions
        what = f"{type(error).__name__}: {error}; they are computed again for each message"
        say(f"samples of client {client} are not kept in {folder} ({what})")
    return samples


def _load(folder: Path) -> Samples | None:
    """The samples that this device stored in the folder; None if the file is missing or damaged: it is written anew."""
    try:
        samples: Samples = pickle.loads((folder / "own.pickle").read_bytes())
    except Exception:  # damaged pickles raise any error
        return None
    return samples


@functools.cache
def _code_hash(*names: str) -> str:
    """A hash of all code that decides which samples a client owns, so that changed code never meets an old cache.

    ``names`` are names of components; those of the form ``package.module:Name`` add the user's modules.
    """
    folders = [Path(str(package.__file__)).parent for package in (fl_sim, importlib.import_module("clients"))]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    for name in names:
        if ":" in name and (file := importlib.import_module(name.partition(":")[0]).__file__):
            files.append(Path(file))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
