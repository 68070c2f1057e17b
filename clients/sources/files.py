"""Finding the files of a data set: in a folder that the user names, or by a download.

A folder that is named (by ``--data_dir``, or else by the environment variable FL_SIM_DATA) is only read from, and no
other place is searched. Otherwise torchvision downloads the data set to the cache folder (see cache.py).
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

from clients.sources.cache import Arrays, Source, cache_folder, cached, staged, with_notes
from fl_sim.learning.arrays import say
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform


@dataclass(frozen=True)
class DataSet:
    """How to find a data set."""

    task: str
    """Name of the task, used in errors and in the names of cache folders."""
    holds: str
    """The files that a folder must hold, in words for error messages."""
    find: Callable[[Path], Source | None]
    """Searches one folder; returns None if the data set is not there."""
    fetch: Callable[[Path], object] | None = None
    """Downloads torchvision's files to a folder; None if there is no download."""


def load(data_set: DataSet, data_dir: str | None) -> tuple[Arrays, Path]:
    """The decoded arrays of a data set, and the folder of their source.

    Raises ValueError if the named folder does not exist or does not hold the data (nothing is created then), or if no
    folder is named and the download fails.
    """
    key, name = ("data_dir", data_dir) if data_dir else ("FL_SIM_DATA", os.environ.get("FL_SIM_DATA", ""))
    if not name:
        source = _downloaded(data_set)
        return with_notes(cached(data_set.task, source), source.notes), source.folder
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{key} = {name!r}: no such folder; name one that holds {data_set.holds}")
    found = data_set.find(folder)
    if found is None:
        raise ValueError(f"{key} = {name!r}: holds no {data_set.task}; it must hold {data_set.holds}")
    try:
        return with_notes(cached(data_set.task, found), found.notes), found.folder
    except (ValueError, OSError) as error:
        raise ValueError(f"{key} = {name!r}: {error}") from error


def _downloaded(data_set: DataSet) -> Source:
    """torchvision's files in the cache folder, downloaded if they are not there yet."""
    folder = cache_folder() / "downloads" / data_set.task
    if (source := data_set.find(folder)) is not None:
        return source
    failure: Exception | None = None
    timeout_s = socket.getdefaulttimeout()
    try:
        if data_set.fetch is not None:
            socket.setdefaulttimeout(10)
            with staged(folder, lambda: data_set.find(folder) is not None) as stage:
                data_set.fetch(stage)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failure = error
    finally:
        socket.setdefaulttimeout(timeout_s)
    if (source := data_set.find(folder)) is not None:
        return source
    ways = [
        f"--data_dir DIR, where DIR holds {data_set.holds}",
        "the environment variable FL_SIM_DATA = DIR, the same for every run",
    ]
    if data_set.fetch is not None:
        ways.append(
            f"a network, for torchvision to download it once (tried just now: {' '.join(str(failure).split())})"
        )
    listed = "; ".join(f"({n}) {way}" for n, way in enumerate(ways, 1))
    missing = f"task.name = {data_set.task!r}: there is no data. Ways to get it: {listed}."
    raise ValueError(f"{missing} Or take the embedded task: --task digits") from failure


def tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory, also if that is read-only: samples of tasks are never modified."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ", category=UserWarning)
        return torch.from_numpy(array)


def image_task(name: str, arrays: Arrays, outputs: int, shape: tuple[int, ...] | None = None) -> Task:
    """A task of classifying pictures: uint8, scaled to [0, 1], or float32 as they are. Notes on them are printed once.

    Parameters
    ----------
    name : str
        Name of the task.
    arrays : Arrays
        Pictures and labels of both splits.
    outputs : int
        Number of classes.
    shape : (channels, height, width) (default: any)
        Shape that the pictures must have.

    Raises
    ------
    ValueError
        If a split is empty, a picture has another shape, or a label is outside 0..outputs-1; it names the first row.
    """
    for split in ("train", "test"):
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        if not len(x) or len(x) != len(y):
            counts = f"{len(x)} pictures and {len(y)} labels in {split}"
            raise ValueError(f"task.name = {name!r}: {counts}; both must be there, one for one")
        if shape is not None and x.shape[1:] != shape:
            raise ValueError(
                f"task.name = {name!r}: pictures of shape {x.shape[1:]} in {split}; they must have {shape}"
            )
        if y.min() < 0 or y.max() >= outputs:
            row = int(np.flatnonzero((y < 0) | (y >= outputs))[0])
            what = f"labels {y.min()}..{y.max()} in {split}; they must lie in 0..{outputs - 1}"
            raise ValueError(f"task.name = {name!r}: {what}; the first that does not is {y[row]} in row {row}")
    train, test = (
        {"x": tensor(arrays[f"{split}_x"]), "y": tensor(arrays[f"{split}_y"])} for split in ("train", "test")
    )
    notes, classes = arrays.get("notes", np.array([], dtype=str)).tolist(), arrays.get("classes")
    for note in notes:
        say(note)
    return Task(
        name,
        train,
        test,
        outputs,
        metrics={"accuracy": accuracy},
        transform=Transform(scale=1 / 255 if train["x"].dtype == torch.uint8 else 1.0),
        labels=arrays["train_y"],
        class_names=None if classes is None else classes.astype(object),
        notes=tuple(notes),
    )
