"""The samples of one device: its part of a shared data set, or a folder of its own. No paper.

What to make is said by the server: names and numbers of task and partition in one flat mapping, ``said`` (``task``,
``task.alpha``, ``partition``, ``partition.seed``, ``clients``, ``inputs``, ``outputs`` ...). A device keeps its own
samples only, and those that cost work to make on its disk, because each message is answered by a new process.

Legend: n the device's samples.
"""

import functools
import hashlib
import importlib
import inspect
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fl_sim
from clients.tasks import cache, decode, sources
from fl_sim import registry, rng
from fl_sim.partition import Partition
from fl_sim.task import Task, Transform

PACKAGES = {"task": "clients.tasks", "partition": "clients.partitions", "model": "clients.models"}
Said = Mapping[str, Any]


@dataclass(frozen=True)
class Own(Partition):
    """A partition as one of its clients sees it: the samples at hand are this client's, 0..n-1."""

    index: int
    """The client."""
    clients: int
    """How many there are."""
    train: int
    """Its training samples."""
    held_out: int
    """Its test samples, which follow the training samples."""

    def __len__(self) -> int:
        """All clients."""
        return self.clients

    def client(self, c: int) -> np.ndarray:
        """(n,) int64: 0..n-1. Raises ValueError for any other client."""
        self._check(c)
        return np.arange(self.train + self.held_out)

    def sizes(self, c: int) -> tuple[int, int]:
        """(training samples, held-out samples). Raises ValueError for any other client."""
        self._check(c)
        return self.train, self.held_out

    def size_counts(self, first: int | None = None) -> np.ndarray:
        """One row: nothing is known of others."""
        return np.array([[self.train, self.held_out, 1]])

    def hold_out(self, share: float, seed: int) -> "Own":
        """It was divided where the samples were chosen."""
        raise NotImplementedError

    def _check(self, c: int) -> None:
        if c != self.index:
            raise ValueError(f"client {c}: this device is client {self.index}")


def thing(kind: str, said: Said) -> tuple[Any, dict[str, Any]]:
    """What ``said[kind]`` names, and its parameters. Of what ships here only the one module is imported. Raises ValueError."""
    name = str(said[kind])
    params = {k.removeprefix(f"{kind}."): v for k, v in said.items() if k.startswith(f"{kind}.")}
    if ":" not in name:
        try:
            found = registry.offered(importlib.import_module(f"{PACKAGES[kind]}.{name.replace('-', '_')}"), kind)
        except ImportError:
            found = {}
        if name in found:
            return found[name], params
    return registry.find(PACKAGES[kind], kind, name), params


def own_samples(said: Said, client: int, data_dir: str) -> tuple[Task, Own]:
    """The task on this device's samples (training part, then held-out part), without a test set.

    ``data_dir`` : a folder of the device's own; empty: client ``client`` of the partition that ``said`` names. Raises
    ValueError that says what is wrong.
    """
    clients = int(said["clients"])
    if not 0 <= client < clients:
        raise ValueError(f"partition-id = {client}: this experiment has {clients} clients; it must be one of 0..{clients - 1}")
    if data_dir:
        return _folder(said, client, Path(data_dir).expanduser())
    make, params = thing("task", said)
    if "data_dir" in inspect.signature(make).parameters:
        return _part(said, client, make, params)  # its pictures are cached already, and may change
    return _kept(said, client, lambda: _part(said, client, make, params))


# A part of a shared data set ---------------------------------------------------------------------------------------------


def _part(said: Said, client: int, make: Any, params: Mapping[str, Any]) -> tuple[Task, Own]:
    """This client's part, found as a simulation finds it: the whole is made, divided, and let go."""
    task: Task = make(**params, **({"clients": said["task-clients"]} if "task-clients" in said else {}))
    divide, options = thing("partition", said)
    seed, held_out = int(options.pop("seed", 0)), float(options.pop("held_out", 0.0))
    central = round(float(said.get("validation", 0.0)) * task.num_train)
    if central:
        order = rng.permutation(rng.key(seed, "validation"), task.num_train)
        task = task.subset(np.sort(order[central:]))
    task = replace(task, transform=transform(task, bool(said.get("standardize")), bool(said.get("augment"))))
    made = divide(task, int(said["clients"]), seed, **options)
    partition = made if isinstance(made, Partition) else Partition.of([np.asarray(p, dtype=np.int64).reshape(-1) for p in made])
    if len(partition) != int(said["clients"]):
        raise ValueError(f"partition.name = {said['partition']!r}: makes {len(partition)} clients here, {said['clients']} on the server")
    partition = partition.hold_out(held_out, seed)
    rows = torch.from_numpy(np.ascontiguousarray(partition.client(client)))
    own = Own(client, len(partition), *partition.sizes(client))
    return replace(task, train={k: v[rows] for k, v in task.train.items()}, test={}, labels=None, clients=None), own


def transform(task: Task, standardize: bool, augment: bool) -> Any:
    """The task's transform with standardisation (by channel of images, else by feature) and augmentation switched on."""
    made, x = task.transform, task.train["x"]
    if not isinstance(made, Transform):
        return made
    if standardize:
        flat = x.transpose(0, 1).flatten(1) if x.ndim == 4 else x.flatten(1).T
        moments = [torch.var_mean(channel.double() * made.scale, correction=0) for channel in flat]
        shape = (-1, 1, 1) if x.ndim == 4 else x.shape[1:]
        mean, std = torch.stack([m for _, m in moments]), torch.stack([v for v, _ in moments]).sqrt()
        made = replace(made, mean=mean.reshape(shape), std=torch.where(std > 0, std, 1.0).reshape(shape))
    return replace(made, augment=augment)


# A folder of its own -----------------------------------------------------------------------------------------------------


def _folder(said: Said, client: int, folder: Path) -> tuple[Task, Own]:
    """All pictures of a folder are this client's; a keyed share of them is held out, as of any client."""
    inputs, outputs = tuple(said["inputs"]), int(said["outputs"])
    if said.get("standardize"):
        raise ValueError("standardize = true: a device with a data-dir knows only its own samples; leave it out")
    if len(inputs) != 3 or inputs[0] not in (1, 3) or inputs[1] != inputs[2]:
        raise ValueError(f"data-dir = {str(folder)!r}: pictures only, but the task's samples have the shape {inputs}")
    arrays = cache.cached(f"device-{said['task']}", _source(folder, "L" if inputs[0] == 1 else "RGB", inputs[1], outputs))
    x, y = arrays["train_x"], arrays["train_y"]
    if not len(x) or x.shape[1:] != inputs or y.min() < 0 or y.max() >= outputs:
        what = f"{len(x)} pictures of shape {x.shape[1:]}, labels {y.min() if len(y) else '-'}..{y.max() if len(y) else '-'}"
        raise ValueError(f"data-dir = {str(folder)!r}: holds {what}; the server's model takes {inputs} and labels 0..{outputs - 1}")
    seed, share = int(said.get("partition.seed", 0)), float(said.get("partition.held_out", 0.0))
    rows, held = np.arange(len(x)), 0
    if share and len(x) > 1:
        rows = rng.permutation(rng.key(seed, "held-out", client), len(x))
        held = min(max(round(share * len(x)), 1), len(x) - 1)
    shell = sources.image_task(str(said["task"]), {"train_x": x, "train_y": y, "test_x": x[:1], "test_y": y[:1]}, outputs)
    train = {"x": torch.from_numpy(np.asarray(x[rows])), "y": torch.from_numpy(np.asarray(y[rows]))}
    changed = transform(replace(shell, train=train), False, bool(said.get("augment")))
    return replace(shell, train=train, test={}, transform=changed, labels=None), Own(client, int(said["clients"]), len(x) - held, held)


def _source(folder: Path, mode: str, size: int, outputs: int) -> cache.Source:
    """``train.parquet`` (columns img or image, and label), or ImageFolder's layout: ``train/<class>/*`` or ``<class>/*``.

    A class is counted by its folder's place among all class folders, empty ones too: every device must have them all.
    """
    if not folder.is_dir():
        raise ValueError(f"data-dir = {str(folder)!r}: no such folder")
    table = folder / "train.parquet"
    empty: cache.Arrays = {"test_x": np.empty((0, 0, 0, 0), np.uint8), "test_y": np.empty(0, np.int64)}
    if table.is_file():

        def rows() -> cache.Arrays:
            x, y = decode._parquet(table, mode)
            return {"train_x": x, "train_y": y, **empty}

        return cache.Source(folder, (table,), rows, variant=mode)
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) != outputs:
        advice = f"one folder for each of the model's {outputs} classes, empty ones too, or train.parquet"
        raise ValueError(f"data-dir = {str(folder)!r}: {len(classes)} class folders; it must hold {advice}")
    files = [(n, f) for n, c in enumerate(classes) for f in sorted(c.rglob("*")) if f.suffix.lower() in decode.PICTURES and f.is_file()]

    def pictures() -> cache.Arrays:
        x = decode.stack(((str(file), file) for _, file in files), len(files), mode, size)
        return {"train_x": x, "train_y": np.array([n for n, _ in files], dtype=np.int64), **empty}

    named = hashlib.sha256(json.dumps([c.name for c in classes]).encode()).hexdigest()[:16]
    return cache.Source(folder, tuple(file for _, file in files), pictures, variant=f"{mode} {size} {named}")


# On disk -----------------------------------------------------------------------------------------------------------------


def _kept(said: Said, client: int, make: Any) -> tuple[Task, Own]:
    """``make()``, once for these settings and this code; a task that cannot be pickled is made each time."""
    decides = {k: v for k, v in said.items() if k.partition(".")[0] in ("task", "partition", "task-clients", "clients")}
    decides |= {k: said.get(k) for k in ("validation", "standardize", "augment")}
    key = hashlib.sha256(json.dumps([client, sorted(decides.items()), _code(*(str(said[k]) for k in ("task", "partition")))]).encode())
    folder = cache.cache_folder() / f"device-{key.hexdigest()[:16]}"
    known = _unpickled(folder)
    if known is not None:
        return known
    made: tuple[Task, Own] = make()
    try:
        text = pickle.dumps(made)
        with cache.staged(folder, lambda: _unpickled(folder) is not None) as stage:
            (stage / "own.pickle").write_bytes(text)
    except (OSError, pickle.PicklingError, AttributeError, TypeError):  # a disk that is full, a task with functions of its own
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
