"""Decoding torchvision's files to arrays, without torchvision.

Its reader of CIFAR-10 unpickles any object; this one unpickles NumPy arrays only.

Legend: N samples; x (N, channels, height, width) uint8, y (N,) int64.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from clients.sources.cache import Arrays, Source


def cifar_batches(root: Path) -> Source | None:
    """A. Krizhevsky's files in ``root/cifar-10-batches-py``, as torchvision downloads them; None if one is missing."""
    folder = root / "cifar-10-batches-py"
    files = tuple(folder / name for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"))

    def decode() -> Arrays:
        x, y = zip(*(_cifar_batch(file) for file in files), strict=True)
        return {"train_x": np.concatenate(x[:5]), "train_y": np.concatenate(y[:5]), "test_x": x[5], "test_y": y[5]}

    return Source(folder, files, decode) if all(file.is_file() for file in files) else None


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and built-in types, and refuses any other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "_frombuffer"):
            return super().find_class(
                module.replace("numpy.core", "numpy._core") if np.__version__ >= "2" else module, name
            )
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def _cifar_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with file.open("rb") as opened:
            batch = _ArraysOnly(opened, encoding="latin1").load()
        x, y = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32), np.asarray(batch["labels"], np.int64)
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        ImportError,
        IndexError,
    ) as error:
        raise ValueError(f"{file}: is no batch of CIFAR-10 ({error}); download it again") from error
    return x, y


def mnist_raw(root: Path) -> Source | None:
    """Y. LeCun's files, unpacked, in ``root/MNIST/raw``, as torchvision downloads them; None if one is missing."""
    folder = root / "MNIST" / "raw"
    names = {
        "train_x": "train-images-idx3",
        "train_y": "train-labels-idx1",
        "test_x": "t10k-images-idx3",
        "test_y": "t10k-labels-idx1",
    }
    files = {name: folder / f"{file}-ubyte" for name, file in names.items()}

    def decode() -> Arrays:
        arrays = {name: _idx(file) for name, file in files.items()}
        return {
            name: array[:, None] if name.endswith("x") else array.astype(np.int64) for name, array in arrays.items()
        }

    return Source(folder, tuple(files.values()), decode) if all(file.is_file() for file in files.values()) else None


def _idx(file: Path) -> np.ndarray:
    """Read an idx file of bytes: two zeros, type 8, the number of axes, the length of each (big-endian), the data."""
    data = file.read_bytes()
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    lengths = np.frombuffer(data[4 : 4 + 4 * axes], ">u4").astype(np.int64)
    if axes != (3 if "idx3" in file.name else 1) or len(data) != 4 + 4 * axes + lengths.prod():
        raise ValueError(f"{file}: is no idx file of bytes, or not all of it; download it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(lengths)
