"""A task from a user's torch Dataset."""

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from clients.sources.decode import channels_first
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.task import Task


def from_dataset(train: Dataset[object], test: Dataset[object] | None = None, **options: Any) -> Task:
    """A task from map-style Datasets of pairs (x, y).

    All samples are read once, with the Dataset's own transform, and stored. That transform should not be random; use
    ``--augment`` for random augmentation.

    Parameters
    ----------
    train, test : Dataset
        x is a tensor, an array or a PIL picture, which becomes (channels, height, width) uint8 and is scaled to [0, 1];
        y is a class or a target.
    **options
        Those of ``from_arrays``: ``clients``, ``loss``, ``metrics``, ``outputs``, ``test_share`` and ``name`` (default:
        the name of the class of ``train``).

    Raises
    ------
    ValueError
        If a Dataset is empty or its samples have different shapes.
    """
    arrays: dict[str, Any] = dict(zip(("x", "y"), _stacked("train", train), strict=True))
    if test is not None:
        arrays.update(zip(("x_test", "y_test"), _stacked("test", test), strict=True))
    return from_arrays(**arrays, **{"name": type(train).__name__.lower(), **options})


def _stacked(key: str, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and all targets of a Dataset; ``key`` names it in errors."""
    pairs = [dataset[i] for i in range(len(dataset))]
    if not pairs:
        raise ValueError(f"from_dataset: {key} has no samples")
    columns = [[_array(pair[n]) for pair in pairs] for n in (0, 1)]
    for name, column in zip("xy", columns, strict=True):
        if len(shapes := sorted({array.shape for array in column})) > 1:
            problem = f"{name} in {key} has the shapes {shapes[:3]}"
            raise ValueError(f"from_dataset: {problem}; they must be equal: resize or pad in its transform")
    return np.stack(columns[0]), np.stack(columns[1])


def _array(value: Any) -> np.ndarray:
    """A tensor, number or array as an array; a PIL picture as (channels, height, width) uint8."""
    if hasattr(value, "convert") and hasattr(value, "getbands"):
        return channels_first(np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB")))
    array = np.asarray(value)
    return array.astype(np.float32) if isinstance(value, float) else array
