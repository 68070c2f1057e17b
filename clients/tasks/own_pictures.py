"""A user's own pictures in one folder for each class, without a division into training and test."""

from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.sources import class_folders, files
from clients.sources.cache import Source, cached, with_notes
from clients.sources.pictures import one_depth, stack
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.registry import offer


@offer("task", name="folder")
def folder(path: str | None = None, size: Annotated[int, Ge(1)] = 32, gray: bool = False) -> Task:
    """Pictures of ``path/<class>/*``, x (3, size, size) or, where ``gray``, (1, size, size) uint8 scaled to [0, 1].

    A fifth of each class, drawn by a fixed key, is the central test set; a class of a single picture has none there.
    Classes are the folders, sorted by name. Pictures are read as by the task ``images``, which has folders ``train``
    and ``test``. ``python -m experiments.adapt RUN --task folder --task.path DIR`` adapts a run's model to them, in the
    size and colours that it takes.

    Raises
    ------
    ValueError
        Without ``path``, for fewer than two classes, and as the task ``images`` does.
    """
    if size < 1:
        raise ValueError(f"task.size = {size}: pictures are resized to size x size pixels; choose 1 or more")
    if path is None:
        raise ValueError("task.path = None: name a folder with one folder of pictures for each class")
    root = Path(path).expanduser()
    listing = class_folders.listed(root)
    names = sorted({label for _, label in listing.entries})
    if len(names) < 2:
        why = "no such folder" if not root.is_dir() else f"holds pictures in {len(names)} class folders"
        notes = "".join(f"; {note}" for note in listing.notes)
        raise ValueError(f"task.path = {path!r}: {why}; it must hold DIR/<class>/*.png of at least two classes{notes}")

    def read() -> dict[str, np.ndarray]:
        paths, remarks = [file for file, _ in listing.entries], list[str]()
        x = stack(((str(file), file) for file in paths), len(paths), "L" if gray else "RGB", size, remarks)
        y = np.array([names.index(label) for _, label in listing.entries], dtype=np.int64)
        held = np.zeros(len(y), dtype=bool)
        for kind in range(len(names)):
            own = np.flatnonzero(y == kind)
            held[own[rng.permutation(rng.key(0, "folder-test", kind), len(own))[: -(-len(own) // 5)]]] = len(own) > 1
        parts = {"train_x": x[~held], "train_y": y[~held], "test_x": x[held], "test_y": y[held]}
        return with_notes({**one_depth(parts), "classes": np.array(names)}, remarks)

    variant = f"{size}x{size}{' gray' * gray}"
    source = Source(root, tuple(file for file, _ in listing.entries), read, variant, listing.notes)
    try:
        arrays = with_notes(cached("folder", source), source.notes)
    except OSError as error:
        raise ValueError(f"task.path = {path!r}: {error}") from error
    return files.image_task("folder", arrays, outputs=len(names))
