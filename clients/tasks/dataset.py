"""A user's torch Dataset as a task. No paper."""

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from clients.sources.decode import channels_first
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.task import Task


def from_dataset(train: Dataset[Any], test: Dataset[Any] | None = None, **options: Any) -> Task:
    """A task from map-style Datasets of pairs (x, y): x a tensor, an array or a PIL picture, y a class or a target.

    All samples are read once, with the Dataset's own transform, and kept; so leave out random ones (``--augment``
    makes keyed draws instead). PIL pictures become (channels, height, width) uint8, scaled to [0, 1]. ``options``
    are those of ``from_arrays``: ``clients``, ``loss``, ``metrics``, ``outputs``, ``test_share``, ``name``. Raises
    ValueError for an empty Dataset and for samples of different shapes.
    """
    arrays: dict[str, Any] = dict(zip(("x", "y"), _stacked("train", train), strict=True))
    if test is not None:
        arrays.update(zip(("x_test", "y_test"), _stacked("test", test), strict=True))
    return from_arrays(**arrays, **{"name": type(train).__name__.lower(), **options})


def _stacked(key: str, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    pairs = [dataset[i] for i in range(len(dataset))]
    if not pairs:
        raise ValueError(f"from_dataset: {key} has no samples")
    columns = [[_array(pair[n]) for pair in pairs] for n in (0, 1)]
    for name, column in zip("xy", columns, strict=True):
        if len(shapes := sorted({array.shape for array in column})) > 1:
            raise ValueError(
                f"from_dataset: {name} in {key} has the shapes {shapes[:3]}; they must be equal: resize or pad in its transform"
            )
    return np.stack(columns[0]), np.stack(columns[1])


def _array(value: Any) -> np.ndarray:
    """A tensor, number or array as it is, a PIL picture as (channels, height, width) uint8."""
    if hasattr(value, "convert") and hasattr(value, "getbands"):
        return channels_first(np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB")))
    array = np.asarray(value)
    return array.astype(np.float32) if isinstance(value, float) else array
