"""Where a data set lies: a folder that the user names, or else a download. No paper.

A named folder (``--data_dir``, or else the environment variable FL_SIM_DATA) is only read, and is the only place
looked into. Without one, torchvision's download is kept in the cache folder (cache.py).

Legend: N samples; shape is (channels, height, width).
"""

import http.client
import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.sources.cache import Arrays, Source, cache_folder, cached, staged
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform


@dataclass(frozen=True)
class Wanted:
    """A data set to look for."""

    task: str
    """Name of the task, and of the cache's folders."""
    holds: str
    """What a good folder holds, in words."""
    find: Callable[[Path], Source | None]
    """Looks into one folder."""
    fetch: Callable[[Path], object] | None = None
    """Downloads torchvision's files into a folder; None where nobody offers them."""


def load(wanted: Wanted, data_dir: str | None) -> tuple[Arrays, Path]:
    """The decoded arrays, and the folder of their source.

    Raises ValueError for a named folder that is missing or lacks the data (nothing is created then), and where no
    folder is named and nothing can be downloaded.
    """
    key, name = ("data_dir", data_dir) if data_dir else ("FL_SIM_DATA", os.environ.get("FL_SIM_DATA", ""))
    if not name:
        source = _downloaded(wanted)
        return cached(wanted.task, source), source.folder
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{key} = {name!r}: no such folder; name one that holds {wanted.holds}")
    found = wanted.find(folder)
    if found is None:
        raise ValueError(f"{key} = {name!r}: holds no {wanted.task}; it must hold {wanted.holds}")
    try:
        return cached(wanted.task, found), found.folder
    except (ValueError, OSError) as error:
        raise ValueError(f"{key} = {name!r}: {error}") from error


def _downloaded(wanted: Wanted) -> Source:
    """torchvision's own files in the cache folder, fetched if they are not there yet."""
    folder = cache_folder() / "downloads" / wanted.task
    if (source := wanted.find(folder)) is not None:
        return source
    failure: Exception | None = None
    timeout_s = socket.getdefaulttimeout()
    try:
        if wanted.fetch is not None:
            socket.setdefaulttimeout(10)
            with staged(folder, lambda: wanted.find(folder) is not None) as stage:
                wanted.fetch(stage)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failure = error
    finally:
        socket.setdefaulttimeout(timeout_s)
    if (source := wanted.find(folder)) is not None:
        return source
    ways = [
        f"--data_dir DIR, where DIR holds {wanted.holds}",
        "the environment variable FL_SIM_DATA = DIR, the same for every run",
    ]
    if wanted.fetch is not None:
        ways.append(
            f"a network, for torchvision to download it once (tried just now: {' '.join(str(failure).split())})"
        )
    listed = "; ".join(f"({n}) {way}" for n, way in enumerate(ways, 1))
    raise ValueError(
        f"task.name = {wanted.task!r}: there is no data. Ways to get it: {listed}. Or take the embedded task: --task digits"
    ) from failure


def tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory, read-only arrays too: tasks are never written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ", category=UserWarning)
        return torch.from_numpy(array)


def image_task(name: str, arrays: Arrays, outputs: int, shape: tuple[int, ...] | None = None) -> Task:
    """Classification of uint8 pictures, scaled to [0, 1].

    Raises ValueError for an empty split, for pictures not of ``shape`` and for labels outside 0..outputs-1.
    """
    for split in ("train", "test"):
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        if not len(x) or len(x) != len(y):
            raise ValueError(
                f"task.name = {name!r}: {len(x)} pictures and {len(y)} labels in {split}; both must be there, one for one"
            )
        if shape is not None and x.shape[1:] != shape:
            raise ValueError(
                f"task.name = {name!r}: pictures of shape {x.shape[1:]} in {split}; they must have {shape}"
            )
        if y.min() < 0 or y.max() >= outputs:
            raise ValueError(
                f"task.name = {name!r}: labels {y.min()}..{y.max()} in {split}; they must lie in 0..{outputs - 1}"
            )
    train, test = (
        {"x": tensor(arrays[f"{split}_x"]), "y": tensor(arrays[f"{split}_y"])} for split in ("train", "test")
    )
    metrics, scale = {"accuracy": accuracy}, Transform(scale=1 / 255)
    return Task(name, train, test, outputs, metrics=metrics, transform=scale, labels=arrays["train_y"])
