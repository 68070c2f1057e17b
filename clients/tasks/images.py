"""A user's own pictures in one folder per class, the layout of torchvision's ImageFolder."""

from pathlib import Path

import numpy as np

from clients.sources import cache, decode, files
from fl_sim.learning.task import Task
from fl_sim.registry import offer


@offer("task")
def images(data_dir: str | None = None, size: int = 32) -> Task:
    """Pictures of ``DIR/train/<class>/*`` and ``DIR/test/<class>/*``, x (3, size, size) uint8 scaled to [0, 1].

    DIR, or else ``DIR/images``, is searched, where DIR is ``data_dir`` or else the folder FL_SIM_DATA. Classes are the
    folders of ``train``, sorted by name. Pictures are resized to ``size`` x ``size`` pixels. Raises ValueError if a
    folder is missing or empty, or if ``train`` lacks a class of ``test``.
    """
    if size < 1:
        raise ValueError(
            f"task.size = {size}: pictures are resized to size x size pixels; choose 1 or more, for instance 32"
        )
    holds = "train/<class>/*.png and test/<class>/*.png"
    data_set = files.DataSet("images", holds, lambda folder: _find(folder, size) or _find(folder / "images", size))
    arrays, _ = files.load(data_set, data_dir)
    return files.image_task("images", arrays, outputs=int(arrays["train_y"].max()) + 1)


def _find(folder: Path, size: int) -> cache.Source | None:
    listed = {split: _listed(folder / split) for split in ("train", "test")}
    if not all(listed.values()):
        return None
    names = sorted({label for _, label in listed["train"]})

    def read() -> cache.Arrays:
        arrays = {}
        for split, entries in listed.items():
            if unknown := sorted({label for _, label in entries} - set(names)):
                raise ValueError(
                    f"{folder / split / unknown[0]}: a class that train lacks; train has {', '.join(names)}"
                )
            arrays[f"{split}_x"] = decode.stack(((str(file), file) for file, _ in entries), len(entries), "RGB", size)
            arrays[f"{split}_y"] = np.array([names.index(label) for _, label in entries], dtype=np.int64)
        return arrays

    return cache.Source(
        folder, tuple(file for entries in listed.values() for file, _ in entries), read, variant=f"{size}x{size}"
    )


def _listed(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of each picture below ``folder/<class>``, sorted by path."""
    found = sorted(file for file in folder.glob("*/**/*") if file.suffix.lower() in decode.PICTURES and file.is_file())
    return [(file, file.relative_to(folder).parts[0]) for file in found]
