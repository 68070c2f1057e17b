"""A task from a user's torch Dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from clients.sources.dataset_samples import Key, Samples, read_samples
from fl_sim.learning.arrays import from_arrays, say
from fl_sim.learning.task import Task


def from_dataset(
    train: Dataset[Any] | Sequence[Any],
    test: Dataset[Any] | Sequence[Any] | None = None,
    *,
    keys: Sequence[Key] | None = None,
    **options: Any,
) -> Task:
    """A task from Datasets with an index: torch's, torchvision's, Hugging Face's, or lists of samples.

    All samples are read once, with the Dataset's own transform, and stored. That transform should not be random (the
    first samples are read twice, and a note says if they differ); use ``--augment`` for random augmentation.

    Parameters
    ----------
    train, test : Dataset
        Each sample is a pair (x, y), or a dict with x under one of the names x, image, img, pixel_values, input,
        inputs, input_values, input_ids, features, data, and y under y, label, labels, target, targets, class,
        class_label. x is a tensor, an array, numbers or a PIL picture, which becomes (channels, height, width): uint8,
        which is scaled to [0, 1], or float32 for pictures of more than 8 bits (``clients.sources.pictures``; it is not
        turned as its EXIF says). y is a class (a number or a word), a target, or a PIL picture of classes: a mask,
        which becomes (height, width). All samples have one shape and one type.
    keys : (name, name) or (place, place), optional
        Where x and y are: names in a dict, or places in a tuple, counted from 0. Needed for tuples of three or more,
        and for dicts with other names. With the same key twice y is x (as floats, scaled): an autoencoder. Samples
        that consist of x alone are their own target too where ``loss`` is given.
    **options
        Those of ``from_arrays``: ``clients``, ``loss``, ``metrics``, ``outputs``, ``test_share``, ``class_axis``,
        ``ignore_index`` (255 in many masks) and ``name`` (default: the name of the class of ``train``).

    Raises
    ------
    ValueError
        For an object without length or index (an IterableDataset, a DataLoader), for samples without a target, and for
        a sample that cannot be read or has another form than the first one; the message names its index. What
        ``from_arrays`` refuses is refused here too; its rows are indices of samples.
    """
    try:
        halves = [("train", train), *([] if test is None else [("test", test)])]
        own_loss = options.get("loss") is not None
        read = {half: read_samples(half, dataset, keys, own_loss) for half, dataset in halves}
        given = {"name": "dataset" if isinstance(train, list | tuple) else type(train).__name__.lower(), **options}
        task, notes = _task(read, given), [note for samples in read.values() for note in samples.notes]
        for note in notes:
            say(note)
        return replace(task, notes=(*notes, *task.notes))
    except ValueError as error:
        raise ValueError(f"from_dataset: {str(error).removeprefix('from_arrays: ')}") from error


def _task(read: Mapping[str, Samples], options: dict[str, Any]) -> Task:
    train, test = read["train"], read.get("test")
    rest: dict[str, Any] = {} if test is None else {"x_test": test.x, "y_test": test.y}
    return from_arrays(train.x, train.y, **rest, **options)


def as_task(value: object) -> object:
    """A Dataset (or a list of samples) as a task by ``from_dataset``; anything else is returned as it is.

    Raises ValueError for a tuple, which may be arrays or Datasets, for a dict of them, and as ``from_dataset`` does.
    """
    if isinstance(value, tuple):
        cure = "pass from_arrays(x, y) for arrays, or from_dataset(train, test) for Datasets"
        raise ValueError(f"{len(value)} objects, not one; {cure}")
    several = isinstance(value, Mapping) and any(_is_indexed(part) for part in value.values())
    if isinstance(value, Task) or not (_is_indexed(value) or several or isinstance(value, Dataset | DataLoader)):
        return value
    return from_dataset(value)  # type: ignore[arg-type]  # what is no Dataset is refused there


def _is_indexed(value: object) -> bool:
    has_index = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return has_index and not isinstance(value, str | type | Mapping)
