"""A device's samples from a folder of its own."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from clients.device.partition import DevicePartition
from clients.device.spec import ExperimentSpec
from clients.feature_shift import shifted
from clients.shares import transform
from clients.sources import cache, class_folders
from clients.sources import files as sources
from clients.sources.parquet_files import read_parquet
from clients.sources.pictures import one_depth, stack
from fl_sim import rng
from fl_sim.learning.task import Task


def from_folder(spec: ExperimentSpec, client: int, folder: Path) -> tuple[Task, DevicePartition]:
    """The task on all pictures of a folder, which belong to this client, and the client's partition.

    As for any client, a keyed share of the pictures is held out. Raises ValueError if the folder does not hold pictures
    of the shape and the classes that the experiment's model takes.
    """
    inputs, outputs = tuple(spec["inputs"]), int(spec["outputs"])
    if spec.get("standardize"):
        raise ValueError("standardize = true: a device with a data-dir knows only its own samples; leave it out")
    if len(inputs) != 3 or inputs[0] not in (1, 3) or inputs[1] != inputs[2]:
        raise ValueError(f"data-dir = {str(folder)!r}: pictures only, but the task's samples have the shape {inputs}")
    source = _source(folder, "L" if inputs[0] == 1 else "RGB", inputs[1], outputs)
    arrays = cache.cached(f"device-{spec['task']}", source)
    x, y = arrays["train_x"], arrays["train_y"]
    if not len(x) or x.shape[1:] != inputs or y.min() < 0 or y.max() >= outputs:
        labels = f"{y.min() if len(y) else '-'}..{y.max() if len(y) else '-'}"
        content = f"{len(x)} pictures of shape {x.shape[1:]}, labels {labels}"
        expected = f"{inputs} and labels 0..{outputs - 1}"
        raise ValueError(f"data-dir = {str(folder)!r}: holds {content}; the server's model takes {expected}")
    seed, share = int(spec.get("partition.seed", 0)), float(spec.get("partition.held_out", 0.0))
    rows, held = np.arange(len(x)), 0
    if share and len(x) > 1:
        rows = rng.permutation(rng.key(seed, "held-out", client), len(x))
        held = min(max(round(share * len(x)), 1), len(x) - 1)
    splits = {"train_x": x, "train_y": y, "test_x": x[:1], "test_y": y[:1]}
    task = sources.image_task(str(spec["task"]), splits, outputs)
    train = {"x": torch.from_numpy(np.asarray(x[rows])), "y": torch.from_numpy(np.asarray(y[rows]))}
    partition = DevicePartition(client, int(spec["clients"]), len(x) - held, held)
    strength = float(spec.get("partition.feature_shift", 0.0))
    task = shifted(replace(task, train=train), partition, strength, seed, [client])
    augmented = transform(task, False, bool(spec.get("augment")))
    return replace(task, test={}, transform=augmented, labels=None), partition


def _one_scale(arrays: cache.Arrays) -> cache.Arrays:
    """Pictures scaled as on all devices. Raises ValueError for pictures of floats, which have no scale in common."""
    if arrays["train_x"].dtype == np.float32:
        raise ValueError(
            "data-dir: pictures of floats (mode F) have no scale that all devices share; save 8 or 16 bits"
        )
    return one_depth(arrays)


def _source(folder: Path, mode: str, size: int, outputs: int) -> cache.Source:
    """``train.parquet`` (columns img or image, and label), or the layout of ImageFolder: ``[train/]<class>/*``.

    A class is numbered by the place of its folder among all class folders, empty ones included; so every device must
    have the folders of all classes.
    """
    if not folder.is_dir():
        raise ValueError(f"data-dir = {str(folder)!r}: no such folder")
    table = folder / "train.parquet"
    empty: cache.Arrays = {"test_x": np.empty((0, 0, 0, 0), np.uint8), "test_y": np.empty(0, np.int64)}
    if table.is_file():

        def rows() -> cache.Arrays:
            x, y = read_parquet(table, mode)
            if y.dtype == object:
                raise ValueError(f"{table}: labels are words, whose numbers only the server knows; write the numbers")
            return _one_scale({"train_x": x, "train_y": y, **empty})

        return cache.Source(folder, (table,), rows, variant=mode)
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes = class_folders.class_folders(root)
    if len(classes) != outputs:
        advice = f"one folder for each of the model's {outputs} classes, empty ones too, or train.parquet"
        raise ValueError(f"data-dir = {str(folder)!r}: {len(classes)} class folders; it must hold {advice}")
    files = [(n, file) for n, c in enumerate(classes) for file in class_folders.pictures(c)]

    def pictures() -> cache.Arrays:
        x = stack(((str(file), file) for _, file in files), len(files), mode, size)
        return _one_scale({"train_x": x, "train_y": np.array([n for n, _ in files], dtype=np.int64), **empty})

    names_hash = hashlib.sha256(json.dumps([c.name for c in classes]).encode()).hexdigest()[:16]
    return cache.Source(folder, tuple(file for _, file in files), pictures, variant=f"{mode} {size} {names_hash}")
