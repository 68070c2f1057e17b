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
from clients.shares import NEVER_TRAIN
from clients.sources import cache
from fl_sim.learning.arrays import say
from fl_sim.learning.task import Task
from fl_sim.logs import own_key

Samples = tuple[Task, DevicePartition]
"""A task on the samples of one client, and the client's partition."""
PURPOSE = "fl-sim samples of a device"
"""What the HMAC is for."""


def cached_samples(spec: ExperimentSpec, client: int, compute: Callable[[], Samples]) -> Samples:
    """The result of ``compute()``, from the cache if it is there for this experiment, client and version of the code.

    Where the disk is full or read-only, and for a task that cannot be pickled, samples are computed each time; a note
    on stderr says so.
    """
    prefixes = ("task", "partition", "task-clients", "clients")
    relevant = {k: v for k, v in spec.items() if k.partition(".")[0] in prefixes}
    names = ("validation", "standardize", "standardize_on", "augment", *NEVER_TRAIN)
    relevant |= {k: spec.get(k) for k in names}
    code = _code_hash(*(str(spec[k]) for k in ("task", "partition")))
    key = hashlib.sha256(json.dumps([client, sorted(relevant.items()), code]).encode())
    folder = cache.cache_folder() / f"device-{key.hexdigest()[:16]}"
    known = _load(folder)
    if known is not None:
        return known
    samples = compute()
    try:
        data = pickle.dumps(samples)
        signature = own_key.sign(f"{PURPOSE} {folder.name}", data)
        if not signature:
            raise OSError(f"{own_key.key_file()} can be neither read nor made, so that nothing can be signed")
        with cache.staged(folder, lambda: _load(folder) is not None) as stage:
            (stage / "own.pickle").write_bytes(data)
            (stage / "own.hmac").write_text(signature, encoding="ascii")
    except (OSError, pickle.PicklingError, AttributeError, TypeError) as error:  # the last three: local functions
        what = f"{type(error).__name__}: {error}; they are computed again for each message"
        say(f"samples of client {client} are not kept in {folder} ({what})")
    return samples


def _load(folder: Path) -> Samples | None:
    """The samples that this device stored in the folder; None if they are missing, damaged, or not signed by its key.

    To unpickle is to run code: so only what this user's key signed is read. The rest is written anew.
    """
    try:
        data, signature = (folder / "own.pickle").read_bytes(), (folder / "own.hmac").read_text(encoding="ascii")
        if not own_key.fits(f"{PURPOSE} {folder.name}", data, signature):
            raise ValueError("this user's key did not sign it, or it was damaged")
        samples: Samples = pickle.loads(data)
    except FileNotFoundError:
        return None
    except Exception as error:  # a class that has changed raises any error
        say(f"the cache {folder} is not used ({type(error).__name__}: {error}); its samples are computed anew")
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
