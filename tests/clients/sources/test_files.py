"""Data come from named folders, the cache or downloads; each error names the setting, its value and a remedy."""

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from clients.sources import cache, parquet_files
from clients.tasks import from_dataset
from clients.tasks.cifar10 import cifar10
from clients.tasks.images import images
from clients.tasks.mnist import mnist


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of one test, which does not exist yet."""
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path, fakes: Any) -> Path:
    """12 training and 6 test pictures of CIFAR-10's size."""
    for split, n in [("train", 12), ("test", 6)]:
        fakes.parquet(
            tmp_path / "data" / "cifar10" / f"{split}.parquet",
            fakes.pictures(n, 32, 32, 3, seed=n),
            [i % 10 for i in range(n)],
        )
    return tmp_path / "data"


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


class TestTheCache:
    def test_the_second_time_neither_reads_nor_writes_the_folder(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, first = listing(data), cifar10(str(data))
        monkeypatch.setattr(parquet_files, "stack", None)  # decoding again would fail
        again = cifar10(str(data))
        assert (
            listing(data) == before
            and torch.equal(first.train["x"], again.train["x"])
            and torch.equal(first.test["y"], again.test["y"])
        )

    def test_it_is_memory_mapped(self, data: Path, cache_folder: Path) -> None:
        cifar10(str(data))
        source = parquet_files.parquet(data / "cifar10", "RGB")
        assert source is not None
        arrays = cache.cached("cifar10", source)
        assert isinstance(arrays["train_x"], np.memmap) and not arrays["train_x"].flags.writeable
        (folder,) = cache_folder.iterdir()  # There is no temporary folder beside it.
        assert sorted(file.name for file in folder.iterdir()) == [
            "checksums.json",
            "test_x.npy",
            "test_y.npy",
            "train_x.npy",
            "train_y.npy",
        ]

    @pytest.mark.parametrize("changed", ["size", "time", "path"])
    def test_changed_files_never_meet_an_old_cache(
        self, changed: str, data: Path, tmp_path: Path, fakes: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cifar10(str(data))
        file = data / "cifar10" / "train.parquet"
        stat, content = file.stat(), file.read_bytes()
        if changed == "size":  # 11 pictures with the same modification time
            fakes.parquet(file, fakes.pictures(11, 32, 32, 3, seed=12), [1] * 11)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        elif changed == "time":  # the same size in bytes
            file.write_bytes(content)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        else:
            data = data.rename(tmp_path / "moved")
        monkeypatch.setattr(parquet_files, "stack", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # decoded, not taken from the cache
            cifar10(str(data))

    @pytest.mark.parametrize(
        "damage", [lambda f: f.write_bytes(f.read_bytes()[:-100]), lambda f: f.write_bytes(b""), lambda f: f.unlink()]
    )
    def test_a_damaged_cache_is_replaced(self, damage: Callable[[Path], Any], data: Path, cache_folder: Path) -> None:
        expected = cifar10(str(data)).train["x"].clone()
        (file,) = cache_folder.glob("*/train_x.npy")
        damage(file)
        assert (
            torch.equal(cifar10(str(data)).train["x"], expected) and file.stat().st_size == 128 + 12 * 3072
        )  # header and pixels

    def test_several_at_once_agree(self, data: Path, cache_folder: Path) -> None:
        source = parquet_files.parquet(data / "cifar10", "RGB")
        assert source is not None
        gate, done = threading.Barrier(4, timeout=30), source.decode()
        at_once = cache.Source(
            source.folder, source.files, lambda: (gate.wait(), done)[1]
        )  # All four find no cache, then all write it.
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: cache.cached("cifar10", at_once), range(4)))
        assert (
            all(np.array_equal(arrays[k], done[k]) for arrays in found for k in done)
            and len(list(cache_folder.iterdir())) == 1
        )

    def test_a_cache_that_cannot_be_written_is_a_warning(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "file"))
        with pytest.warns(UserWarning, match=r"FL_SIM_CACHE = .*file.* cannot be written"):
            assert cifar10(str(data)).num_train == 12

    def test_the_folder_of_the_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert cache.cache_folder() == tmp_path / "cache"
        monkeypatch.delenv("FL_SIM_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/x")
        assert cache.cache_folder() == Path("/x/fl-sim")
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache.cache_folder() == Path.home() / ".cache" / "fl-sim"


class TestNamedFolders:
    @pytest.mark.parametrize("key", ["data_dir", "FL_SIM_DATA"])
    @pytest.mark.parametrize("folder, message", [("nowhere", "no such folder"), ("empty", "holds no cifar10")])
    def test_a_bad_folder_is_refused_and_nothing_is_created(
        self, key: str, folder: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cifar10(str(data))  # A valid cache is not used.
        (tmp_path / "empty" / "mnist").mkdir(parents=True)
        before = listing(tmp_path)
        monkeypatch.setenv("FL_SIM_DATA", str(tmp_path / folder))
        with pytest.raises(ValueError, match=rf"{key} = '.*{folder}': {message}.*train\.parquet"):
            cifar10(str(tmp_path / folder) if key == "data_dir" else None)
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

    def test_one_split_alone_is_not_enough(self, data: Path) -> None:
        (data / "cifar10" / "test.parquet").unlink()
        with pytest.raises(ValueError, match="holds no cifar10"):
            cifar10(str(data))


class TestDownloads:
    def test_without_a_network_the_error_lists_the_ways_to_get_data(
        self, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
    ) -> None:
        calls = []

        def offline(root: str, download: bool) -> None:
            calls.append(root)
            Path(root, "half_a_file").write_bytes(b"x")
            raise URLError("no network here")

        monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
        ways = r"\(1\) --data_dir DIR.*\(2\) .*FL_SIM_DATA.*\(3\) a network.*no network here.*--task digits"
        message = rf"task\.name = 'cifar10': .*{ways}"
        with pytest.raises(ValueError, match=message):
            cifar10()
        assert len(calls) == 1 and not [path for path in cache_folder.rglob("*") if path.is_file()]

    def test_a_download_is_done_once(self, monkeypatch: pytest.MonkeyPatch, fakes: Any) -> None:
        x, calls = fakes.pictures(4, 28, 28), []

        def online(root: str, download: bool) -> None:
            calls.append(root)
            for prefix in ("train", "t10k"):
                fakes.idx(Path(root), prefix, x, [1, 2, 3, 4])

        monkeypatch.setattr("torchvision.datasets.MNIST", online)
        assert torch.equal(mnist().train["x"], mnist().test["x"]) and len(calls) == 1
        assert np.array_equal(mnist().train["x"][:, 0].numpy(), x)

    def test_a_users_own_pictures_are_not_downloaded(self) -> None:
        with pytest.raises(
            ValueError, match=r"task\.name = 'images': .*\(1\) --data_dir DIR.*train/<class>.*--task digits"
        ) as refusal:
            images()
        assert "network" not in str(refusal.value)


class TestTorchvisionsFiles:
    @pytest.mark.parametrize("below", ["", "mnist"])
    def test_mnist(self, below: str, tmp_path: Path, fakes: Any) -> None:
        x = fakes.pictures(7, 28, 28)
        fakes.idx(tmp_path / below, "train", x[:5], [5, 0, 4, 1, 9])
        fakes.idx(tmp_path / below, "t10k", x[5:], [7, 2])
        task = mnist(str(tmp_path))
        assert np.array_equal(task.train["x"][:, 0].numpy(), x[:5]) and task.train["y"].tolist() == [5, 0, 4, 1, 9]
        assert np.array_equal(task.test["x"][:, 0].numpy(), x[5:]) and task.test["y"].tolist() == [7, 2]

    @pytest.mark.parametrize("below", ["", "cifar10"])
    def test_cifar10(self, below: str, tmp_path: Path, fakes: Any) -> None:
        x, y = fakes.pictures(12, 3072), [i % 10 for i in range(12)]
        fakes.batches(tmp_path / below, x, y)
        task = cifar10(str(tmp_path))
        assert (
            np.array_equal(task.train["x"].numpy(), x[:10].reshape(10, 3, 32, 32))
            and task.train["y"].tolist() == y[:10]
        )
        assert (
            np.array_equal(task.test["x"].numpy(), x[10:].reshape(2, 3, 32, 32)) and task.test["y"].tolist() == y[10:]
        )

    def test_our_reader_reads_what_torchvisions_does(
        self, tmp_path: Path, fakes: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torchvision.datasets import CIFAR10, MNIST

        x, y = fakes.pictures(12, 3072), [i % 10 for i in range(12)]
        fakes.batches(tmp_path, x, y)
        for prefix in ("train", "t10k"):
            fakes.idx(tmp_path, prefix, fakes.pictures(3, 28, 28), [3, 1, 2])
        monkeypatch.setattr(
            CIFAR10, "_check_integrity", lambda _: True
        )  # The fake files do not have the known checksums.
        monkeypatch.setattr(CIFAR10, "_load_meta", lambda _: None)
        theirs = CIFAR10(str(tmp_path), train=False)
        assert (
            np.array_equal(theirs.data.transpose(0, 3, 1, 2), cifar10(str(tmp_path)).test["x"].numpy())
            and theirs.targets == y[10:]
        )
        digits = MNIST(str(tmp_path))
        assert torch.equal(digits.data, mnist(str(tmp_path)).train["x"][:, 0]) and torch.equal(
            digits.targets, mnist(str(tmp_path)).train["y"]
        )
        for ours, samples in (
            (from_dataset(digits, test_share=0.0, outputs=10), mnist(str(tmp_path)).train),
            (from_dataset(theirs, test_share=0.0, outputs=10), cifar10(str(tmp_path)).test),
        ):
            assert all(torch.equal(ours.train[key], samples[key]) for key in ("x", "y"))

    def test_a_pickle_may_hold_arrays_only(self, tmp_path: Path, fakes: Any) -> None:
        folder = fakes.batches(tmp_path, fakes.pictures(6, 3072), [1] * 6)
        (folder / "data_batch_3").write_bytes(pickle.dumps({"data": os.system, "labels": []}))
        with pytest.raises(
            ValueError, match=r"data_dir = .*data_batch_3: is no batch of CIFAR-10 \(it holds \w+\.system\)"
        ):
            cifar10(str(tmp_path))

    def test_a_truncated_file_is_refused(self, tmp_path: Path, fakes: Any) -> None:
        for prefix in ("train", "t10k"):
            raw = fakes.idx(tmp_path, prefix, fakes.pictures(3, 28, 28), [3, 1, 2])
        file = raw / "t10k-images-idx3-ubyte"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte: is no idx file of bytes, or not all of it"):
            mnist(str(tmp_path))
