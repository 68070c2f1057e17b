"""Data for the tests of ``clients``: the real data sets where they are available, and small fakes of every layout."""

import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

SHARED = Path(os.environ.get("FL_SIM_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
"""Evaluated at collection, since the tests run without the machine's FL_SIM_DATA."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real CIFAR-10 and MNIST; skips the test where they are not available."""
    if not (SHARED / "cifar10" / "train.parquet").is_file():
        pytest.skip(f"no real data: {SHARED} (FL_SIM_DATA, or else ../shared/data) holds no cifar10/train.parquet")
    return SHARED


class Fakes:
    """Writers of small files in the layouts that tasks read."""

    @staticmethod
    def pictures(n: int, *shape: int, seed: int = 0) -> np.ndarray:
        """(n, *shape) uint8 noise."""
        return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)

    @staticmethod
    def png(pixels: np.ndarray) -> bytes:
        """(height, width) or (height, width, 3) uint8 as the bytes of a PNG, which is lossless."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        return file.getvalue()

    def parquet(self, file: Path, pixels: np.ndarray, labels: Sequence[int | str | None], column: str = "img") -> Path:
        """A parquet file in the schema of the Hugging Face hub: ``column`` {bytes, path} and ``label``."""
        file.parent.mkdir(parents=True, exist_ok=True)
        encoded = [{"bytes": self.png(picture), "path": None} for picture in pixels]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        known = pa.array(list(labels)) if labels else pa.array([], pa.int64())
        pq.write_table(pa.table({column: pa.array(encoded, kind), "label": known}), file)
        return file

    def idx(self, folder: Path, prefix: str, x: np.ndarray, y: list[int]) -> Path:
        """One split of torchvision's MNIST/raw: x (N, 28, 28)."""
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        lengths = b"".join(int(n).to_bytes(4, "big") for n in x.shape)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + lengths + x.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + len(y).to_bytes(4, "big") + bytes(y))
        return raw

    def batches(self, folder: Path, x: np.ndarray, y: list[int]) -> Path:
        """torchvision's cifar-10-batches-py: x (6 n, 3072), the last n of them the test batch."""
        batches = folder / "cifar-10-batches-py"
        batches.mkdir(parents=True)
        n = len(x) // 6
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            part = slice(i * n, (i + 1) * n)
            (batches / name).write_bytes(pickle.dumps({"data": x[part], "labels": y[part]}, protocol=2))
        return batches


@pytest.fixture(scope="session")
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture(scope="session")
def fake_data(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few samples of each task that reads files: cifar10, mnist with 3 writers, 2 classes of images."""
    folder = tmp_path_factory.mktemp("fake_data")
    for split, n in [("train", 12), ("test", 5)]:
        labels = [i % 10 for i in range(n)]
        fakes.parquet(folder / "cifar10" / f"{split}.parquet", fakes.pictures(n, 32, 32, 3), labels)
        fakes.parquet(folder / "mnist" / f"{split}.parquet", fakes.pictures(n, 28, 28), labels, column="image")
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            (folder / split / name / "a.png").write_bytes(fakes.png(fakes.pictures(1, 20, 30, 3)[0]))
            (folder / "own" / name).mkdir(parents=True, exist_ok=True)
            (folder / "own" / name / f"{split}.png").write_bytes(fakes.png(fakes.pictures(1, 20, 30, 3)[0]))
    np.savez(folder / "mnist" / "writers.npz", train=np.arange(12) % 3 * 100)
    speeches = {
        "client_id": ["p/A", "p/B", "p/A", "p/C"],
        "text": ["To be, or " * 9, "not\u00e9 to" * 9, "be " * 30, "x"],
    }
    pq.write_table(pa.table(speeches), folder / "shakespeare.parquet")
    alphabet = np.arange(28) // 7  # four alphabets of seven characters; the last is no background
    pictures = fakes.pictures(28 * 20, 28, 28).reshape(28, 20, 28, 28)
    np.savez(folder / "omniglot.npz", images=pictures, alphabet=alphabet, background=alphabet < 3)
    return folder
