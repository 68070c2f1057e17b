"""A user's own pictures in one folder per class, the layout of torchvision's ImageFolder."""

from pathlib import Path

import numpy as np

from clients.sources import cache, class_folders, files
from clients.sources.pictures import one_depth, stack
from fl_sim.learning.task import Task
from fl_sim.registry import offer


@offer("task")
def images(data_dir: str | None = None, size: int = 32) -> Task:
    """Pictures of ``DIR/train/<class>/*`` and ``DIR/test/<class>/*``, x (3, size, size) uint8 scaled to [0, 1].

    DIR, or else ``DIR/images``, is searched, where DIR is ``data_dir`` or else the folder FL_SIM_DATA. Classes are the
    folders of ``train``, sorted by name; their names are kept in the run folder (``names.json``). Pictures are turned
    as their EXIF orientation says and resized to ``size`` x ``size`` pixels. Where some have 16 bits, x is float32 in
    [0, 1] for all; pictures of floats keep their values. ``clients.sources.pictures`` has the rule for each kind of
    picture, ``clients.sources.class_folders`` which files are skipped.

    Raises
    ------
    ValueError
        If a folder is missing or empty, if ``train`` lacks a class of ``test``, and for a file that is damaged, has
        several frames, or holds numbers without a known scale.
    """
    if size < 1:
        raise ValueError(
            f"task.size = {size}: pictures are resized to size x size pixels; choose 1 or more, for instance 32"
        )
    holds = "train/<class>/*.png and test/<class>/*.png"
    arrays, _ = files.load(files.DataSet("images", holds, lambda folder: _search(folder, size)), data_dir)
    return files.image_task("images", arrays, outputs=int(arrays["train_y"].max()) + 1)


def _search(folder: Path, size: int) -> cache.Source | None:
    """The pictures in ``folder`` or in ``folder/images``. Raises ValueError where there are files, but no pictures."""
    source = _find(folder, size) or _find(folder / "images", size)
    if source is None:
        halves = [place / split for place in (folder, folder / "images") for split in ("train", "test")]
        if notes := [note for half in halves for note in class_folders.listed(half).notes]:
            raise ValueError(
                f"task images: train and test must both hold pictures in class folders; {'; '.join(notes)}"
            )
    return source


def _find(folder: Path, size: int) -> cache.Source | None:
    listed = {split: class_folders.listed(folder / split) for split in ("train", "test")}
    if not all(listing.entries for listing in listed.values()):
        return None
    names = sorted({label for _, label in listed["train"].entries})

    def read() -> cache.Arrays:
        arrays, remarks = {}, list[str]()
        for split, listing in listed.items():
            if unknown := sorted({label for _, label in listing.entries} - set(names)):
                raise ValueError(
                    f"{folder / split / unknown[0]}: a class that train lacks; train has {', '.join(names)}"
                )
            paths = [file for file, _ in listing.entries]
            arrays[f"{split}_x"] = stack(((str(file), file) for file in paths), len(paths), "RGB", size, remarks)
            arrays[f"{split}_y"] = np.array([names.index(label) for _, label in listing.entries], dtype=np.int64)
        return cache.with_notes({**one_depth(arrays), "classes": np.array(names)}, remarks)

    return cache.Source(
        folder,
        tuple(file for listing in listed.values() for file, _ in listing.entries),
        read,
        variant=f"{size}x{size}",
        notes=tuple(note for listing in listed.values() for note in listing.notes),
    )
