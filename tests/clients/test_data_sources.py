"""Where data come from: named folders, the cache, downloads; each error names the key, the value and the cure."""

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clients.tasks import cache, decode
from clients.tasks.cifar10 import cifar10
from clients.tasks.images import images
from clients.tasks.mnist import mnist


def helpers() -> Any:
    """The writers of fake files in the conftest beside this file (no test imports another by name)."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("clients_conftest", Path(__file__).with_name("conftest.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = helpers()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, not there yet."""
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """12 training and 6 test pictures of CIFAR-10's size, labels counting up."""
    for split, n in [("train", 12), ("test", 6)]:
        fake.write_parquet(tmp_path / "data" / "cifar10" / f"{split}.parquet", fake.pictures(n, 32, 32, 3, seed=n), [i % 10 for i in range(n)])
    return tmp_path / "data"


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


class TestParquet:
    @pytest.mark.parametrize("column", ["img", "image"])
    def test_pixels_and_labels_arrive_unchanged(self, column: str, tmp_path: Path) -> None:
        for split in ("train", "test"):
            fake.write_parquet(tmp_path / "cifar10" / f"{split}.parquet", fake.pictures(3, 32, 32, 3), [7, 0, 9], column)
        task = cifar10(str(tmp_path))
        assert np.array_equal(task.train["x"].numpy(), fake.pictures(3, 32, 32, 3).transpose(0, 3, 1, 2))
        assert task.train["y"].tolist() == task.test["y"].tolist() == [7, 0, 9] and task.train["x"].dtype == torch.uint8

    def test_the_folder_is_only_read_and_the_second_time_not_even_that(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = listing(data)
        first = cifar10(str(data))
        monkeypatch.setattr(decode, "stack", None)  # decoding again would fail
        again = cifar10(str(data))
        assert listing(data) == before and torch.equal(first.train["x"], again.train["x"]) and torch.equal(first.test["y"], again.test["y"])

    def test_the_cache_is_memory_mapped(self, data: Path, cache_folder: Path) -> None:
        cifar10(str(data))
        arrays = cache.cached("cifar10", decode.parquet(data / "cifar10", "RGB") or pytest.fail("no source"))
        assert isinstance(arrays["train_x"], np.memmap) and not arrays["train_x"].flags.writeable
        (folder,) = cache_folder.iterdir()  # and no temporary one beside it
        assert sorted(file.name for file in folder.iterdir()) == ["test_x.npy", "test_y.npy", "train_x.npy", "train_y.npy"]

    @pytest.mark.parametrize("change", ["content", "time", "path"])
    def test_other_files_never_meet_an_old_cache(self, change: str, data: Path, tmp_path: Path) -> None:
        old = cifar10(str(data)).train["x"].clone()
        file = data / "cifar10" / "train.parquet"
        stat = file.stat()
        fake.write_parquet(file, fake.pictures(12, 32, 32, 3, seed=99 if change != "content" else 98), list(range(10)) + [0, 1])
        if change == "content":  # another size at the very same time
            fake.write_parquet(file, fake.pictures(11, 32, 32, 3, seed=98), list(range(10)) + [0])
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if change == "path":
            data = data.rename(tmp_path / "moved")
        assert not torch.equal(cifar10(str(data)).train["x"][:5], old[:5])

    @pytest.mark.parametrize("damage", [lambda f: f.write_bytes(f.read_bytes()[:-100]), lambda f: f.write_bytes(b""), lambda f: f.unlink()])
    def test_a_damaged_cache_is_made_anew(self, damage: Callable[[Path], Any], data: Path, cache_folder: Path) -> None:
        expected = cifar10(str(data)).train["x"].clone()
        (file,) = cache_folder.glob("*/train_x.npy")
        damage(file)
        assert torch.equal(cifar10(str(data)).train["x"], expected) and len(file.read_bytes()) > 12 * 3072

    def test_several_at_once_agree(self, data: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = decode.parquet(data / "cifar10", "RGB")
        assert source is not None
        gate, done = threading.Barrier(4, timeout=30), source.decode()
        at_once = cache.Source(source.folder, source.files, lambda: (gate.wait(), done)[1])  # all four find no cache, then store
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: cache.cached("cifar10", at_once), range(4)))
        assert all(np.array_equal(arrays[k], done[k]) for arrays in found for k in done) and len(list(cache_folder.iterdir())) == 1

    def test_a_cache_that_cannot_be_written_is_told_and_does_not_stop(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "file"))
        with pytest.warns(UserWarning, match="FL_SIM_CACHE = .*file.* cannot be written"):
            assert cifar10(str(data)).num_train == 12


def table(labels: Any, column: str = "img", kind: Any = None) -> pa.Table:
    pixels = [{"bytes": fake.png(p), "path": None} for p in fake.pictures(len(labels), 32, 32, 3)]
    return pa.table({column: pixels, "label": pa.array(labels, kind)})


class TestBadData:
    @pytest.mark.parametrize("key", ["data_dir", "FL_SIM_DATA"])
    def test_a_missing_or_empty_folder_is_bad_input_and_nothing_is_made(
        self, key: str, data: Path, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cifar10(str(data))  # a good cache does not help
        before = listing(tmp_path)
        (empty := tmp_path / "data" / "cifar10" / "..").resolve()
        for folder, said in [(tmp_path / "nowhere", "no such folder"), (empty.parent.parent.parent / "cache", "holds no cifar10")]:
            monkeypatch.setenv("FL_SIM_DATA", str(folder))
            flag = {"data_dir": str(folder)} if key == "data_dir" else {}
            with pytest.raises(ValueError, match=f"{key} = '.*{folder.name}': {said}.*train.parquet"):
                cifar10(**flag)
        assert listing(tmp_path) == before

    def test_the_flag_wins_over_the_environment(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FL_SIM_DATA", "/nowhere")
        assert cifar10(str(data)).num_train == 12
        with pytest.raises(ValueError, match="FL_SIM_DATA = '/nowhere'"):
            cifar10()
        monkeypatch.setenv("FL_SIM_DATA", str(data))
        assert cifar10().num_train == 12
        with pytest.raises(ValueError, match="data_dir = '/nowhere'"):
            cifar10("/nowhere")

    @pytest.mark.parametrize(
        "content, said",
        [
            (b"junk", "cannot be read as parquet"),
            (pa.table({"pixels": [1], "label": [1]}), "has the columns pixels, label; it needs img or image"),
            (pa.table({"img": [b"x"], "label": [1]}), "must be {bytes, path}"),
            (pa.table({"img": [{"bytes": b"junk", "path": None}], "label": [1]}), "row 0: cannot be decoded"),
            (pa.table({"img": [{"bytes": None, "path": "a.png"}], "label": [1]}), "row 0: cannot be decoded"),
            (table([1, None, 2]), "1 labels are missing"),
            (table([1, 10, 2]), "labels 1..10 in train; they must lie in 0..9"),
            (table([-1, 0]), "labels -1..0"),
            (table(["cat", "dog"]), "label integer"),
            (table([1, 2])[:0], "0 pictures and 0 labels"),
        ],
    )
    def test_bad_files_are_told(self, content: Any, said: str, data: Path) -> None:
        file = data / "cifar10" / "train.parquet"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            pq.write_table(content, file)
        with pytest.raises(ValueError, match=said):
            cifar10(str(data))

    def test_pictures_of_another_size_are_told(self, data: Path) -> None:
        fake.write_parquet(data / "cifar10" / "test.parquet", fake.pictures(2, 28, 28, 3), [0, 1])
        with pytest.raises(ValueError, match=r"shape \(3, 28, 28\) in test; they must have \(3, 32, 32\)"):
            cifar10(str(data))

    def test_writers_must_match(self, fake_data: Path, tmp_path: Path) -> None:
        (tmp_path / "mnist").mkdir()
        for split in ("train", "test"):
            (tmp_path / "mnist" / f"{split}.parquet").write_bytes((fake_data / "mnist" / f"{split}.parquet").read_bytes())
        assert mnist(str(tmp_path)).clients is None
        np.savez(tmp_path / "mnist" / "writers.npz", train=np.zeros(3))
        with pytest.raises(ValueError, match="3 writers for 12 digits"):
            mnist(str(tmp_path))


class TestTorchvisionsFiles:
    @pytest.mark.parametrize("below", ["", "mnist"])
    def test_mnist_raw(self, below: str, tmp_path: Path) -> None:
        x = fake.pictures(7, 28, 28)
        fake.write_idx(tmp_path / below, x, [5, 0, 4, 1, 9], "train") if False else fake.write_idx(tmp_path / below, x[:5], [5, 0, 4, 1, 9], "train")
        fake.write_idx(tmp_path / below, x[5:], [7, 2], "t10k")
        task = mnist(str(tmp_path))
        assert np.array_equal(task.train["x"][:, 0].numpy(), x[:5]) and task.train["y"].tolist() == [5, 0, 4, 1, 9]
        assert np.array_equal(task.test["x"][:, 0].numpy(), x[5:]) and task.test["y"].tolist() == [7, 2]
