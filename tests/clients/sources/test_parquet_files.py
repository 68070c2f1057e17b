"""Decoding of parquet files and folders of pictures; the real data sets have their published statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clients.sources.parquet_files import read_parquet
from clients.tasks.cifar10 import cifar10
from clients.tasks.images import images
from clients.tasks.mnist import mnist


@pytest.mark.parametrize("column", ["img", "image"])
def test_pixels_and_labels_of_parquet_arrive_unchanged(column: str, tmp_path: Path, fakes: Any) -> None:
    pixels = fakes.pictures(3, 32, 32, 3)
    for split in ("train", "test"):
        fakes.parquet(tmp_path / "cifar10" / f"{split}.parquet", pixels, [7, 0, 9], column)
    task = cifar10(str(tmp_path))
    assert (
        np.array_equal(task.train["x"].numpy(), pixels.transpose(0, 3, 1, 2)) and task.train["x"].dtype == torch.uint8
    )
    assert task.train["y"].tolist() == task.test["y"].tolist() == [7, 0, 9]


def test_more_rows_than_a_batch(tmp_path: Path, fakes: Any) -> None:
    pixels = np.arange(2300 * 784).reshape(2300, 28, 28).astype(np.uint8)  # batches of 1000 rows are read
    pixels[:, 0, 0] = np.arange(2300) % 251
    for split in ("train", "test"):
        fakes.parquet(tmp_path / "mnist" / f"{split}.parquet", pixels, [i % 10 for i in range(2300)], "image")
    assert np.array_equal(mnist(str(tmp_path)).train["x"][:, 0].numpy(), pixels)


class TestLabels:
    @pytest.mark.parametrize(
        "labels",
        [
            pa.array([1, 0, 1], pa.uint8()),
            pa.array([True, False, True]),
            pa.array([1.0, 0.0, 1.0]),
            pa.array(["dog", "cat", "dog"]),
            pa.array(["dog", "cat", "dog"]).dictionary_encode(),
            pa.array(["dog", "cat", "dog"], pa.string_view()),
        ],
    )
    def test_whole_numbers_booleans_and_words_are_classes(self, labels: Any, tmp_path: Path, fakes: Any) -> None:
        pixels = fakes.pictures(3, 32, 32, 3)
        encoded = [fakes.png(picture) for picture in pixels]  # bytes, not {bytes, path}
        for split in ("train", "test"):
            (tmp_path / "cifar10").mkdir(exist_ok=True)
            pq.write_table(
                pa.table({"id": [1, 2, 3], "x": encoded, "target": labels}), tmp_path / f"cifar10/{split}.parquet"
            )
        for _ in range(2):  # decoded, and from the cache
            task = cifar10(str(tmp_path))
            assert task.train["y"].tolist() == task.test["y"].tolist() == [1, 0, 1]
            assert np.array_equal(task.train["x"].numpy(), pixels.transpose(0, 3, 1, 2))
            named = None if task.class_names is None else task.class_names.tolist()
            assert named == (["cat", "dog"] if "string" in str(labels.type) else None)

    def test_every_type_of_bytes_and_text_is_read(self, tmp_path: Path, fakes: Any) -> None:
        pixels = fakes.pictures(2, 4, 4)
        encoded, file = [fakes.png(picture) for picture in pixels], tmp_path / "a.parquet"
        columns = [pa.array(encoded, kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())]
        columns += [
            pa.array(encoded).dictionary_encode(),
            pa.StructArray.from_arrays([pa.array(encoded, pa.binary_view())], ["bytes"]),
        ]
        for column in columns:
            pq.write_table(pa.table({"img": column, "label": pa.array([2**63 - 1, 0], pa.uint64())}), file)
            x, y = read_parquet(file, "L")
            assert np.array_equal(x[:, 0], pixels) and y.tolist() == [2**63 - 1, 0]

    def test_words_of_the_test_half_alone_are_refused(self, tmp_path: Path, fakes: Any) -> None:
        for split, words in (("train", ["cat", "dog"]), ("test", ["dog", "bird"])):
            fakes.parquet(tmp_path / "cifar10" / f"{split}.parquet", fakes.pictures(2, 32, 32, 3), words)
        with pytest.raises(ValueError, match="y_test holds 'bird' in row 1, a class that y lacks; y has 'cat', 'dog'"):
            cifar10(str(tmp_path))


class TestBadFiles:
    @pytest.mark.parametrize(
        "content, message",
        [
            (b"junk", "train.parquet: cannot be read as parquet"),
            (pa.table({"pixels": [1], "label": [1]}), "has the columns pixels, label; it needs img or image"),
            (pa.table({"img": ["x.png"], "label": [1]}), "column img is string; it must be {bytes, path}, or bytes"),
            (pa.table({"img": [b"x"], "label": [1]}), "train.parquet row 0: cannot be decoded"),
            (b"", "train.parquet: cannot be read as parquet .*is 0 bytes"),
            (
                pa.Table.from_arrays([pa.array([b"x"])] * 2 + [pa.array([1])], ["img", "img", "label"]),
                "train.parquet: 2 columns are named img; rename or drop all but the one that is meant",
            ),
            (
                pa.table({"img": [{"bytes": "x"}], "label": [1]}),
                "column img is struct<bytes: string>; it must be {bytes, path}, or bytes",
            ),
            (
                pa.table({"img": [b"x"], "label": pa.array([2**63], pa.uint64())}),
                "train.parquet: label 9223372036854775808 in row 0 does not fit into 64 bits",
            ),
            (pa.table({"img": [b"x"], "label": [1e30]}), r"train.parquet: label 1e\+30 in row 0 does not fit"),
            (
                pa.table({"img": [b"x"], "class": [1], "target": [1]}),
                "columns img, class, target; class and target could both be meant: rename one to label",
            ),
            (
                pa.table({"img": [{"bytes": b"junk", "path": None}], "label": [1]}),
                "train.parquet row 0: cannot be decoded",
            ),
            (
                pa.table({"img": [{"bytes": None, "path": "a.png"}], "label": [1]}),
                "row 0: has no bytes in column img; embed",
            ),
        ],
    )
    def test_what_is_no_data_set(self, content: Any, message: str, tmp_path: Path, fakes: Any) -> None:
        fakes.parquet(tmp_path / "cifar10" / "test.parquet", fakes.pictures(2, 32, 32, 3), [0, 1])
        file = tmp_path / "cifar10" / "train.parquet"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            pq.write_table(content, file)
        with pytest.raises(ValueError, match=f"data_dir = '{tmp_path}': .*{message}"):
            cifar10(str(tmp_path))

    def test_a_damaged_page_is_named_with_its_file(self, tmp_path: Path, fakes: Any) -> None:
        file = fakes.parquet(tmp_path / "a.parquet", fakes.pictures(50, 4, 4), [0, 1] * 25)
        data = bytearray(file.read_bytes())
        data[60:160] = bytes(byte ^ 0x5A for byte in data[60:160])
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as parquet \(.*write it again"):
            read_parquet(file, "L")

    @pytest.mark.parametrize(
        "size, labels, message",
        [
            (32, [1, None], "1 labels are missing, the first in row 1; drop these rows"),
            (32, [1, 10], r"labels 1\.\.10 in train; they must lie in 0\.\.9; the first that does not is 10 in row 1"),
            (32, [-1, 0], r"labels -1\.\.0 in train.*the first that does not is -1 in row 0"),
            (32, ["cat", "dog"], "labels of train.parquet and test.parquet are words and numbers"),
            (32, [1.0, 2.5], "label 2.5 in row 1 is no whole number"),
            (32, [1.0, float("nan")], "label nan in row 1 is no whole number"),
            (32, [], r"train\.parquet: has no rows; it must have one row a picture"),
            (28, [1, 2], r"shape \(3, 28, 28\) in train; they must have \(3, 32, 32\)"),
        ],
    )
    def test_what_does_not_fit(self, size: int, labels: list[Any], message: str, tmp_path: Path, fakes: Any) -> None:
        fakes.parquet(tmp_path / "cifar10" / "train.parquet", fakes.pictures(len(labels), size, size, 3), labels)
        fakes.parquet(tmp_path / "cifar10" / "test.parquet", fakes.pictures(2, 32, 32, 3), [0, 1])
        with pytest.raises(ValueError, match=message):
            cifar10(str(tmp_path))

    def test_writers_must_be_one_a_digit(self, tmp_path: Path, fakes: Any) -> None:
        for split in ("train", "test"):
            fakes.parquet(tmp_path / "mnist" / f"{split}.parquet", fakes.pictures(4, 28, 28), [0, 1, 2, 3], "image")
        assert mnist(str(tmp_path)).clients is None
        np.savez(tmp_path / "mnist" / "writers.npz", train=np.zeros(3))
        with pytest.raises(ValueError, match=r"writers\.npz: 3 writers for 4 digits"):
            mnist(str(tmp_path))


class TestFoldersOfPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path, fakes: Any) -> Path:
        """Two classes, a and b; grey and colour pictures, some in nested folders."""
        for split, name, pixels in [
            ("train", "a/2.png", np.full((20, 30), 40, np.uint8)),
            ("train", "a/deep/er/1.PNG", np.full((9, 9, 3), [10, 20, 30], np.uint8)),
            ("train", "b/x.png", np.full((8, 8, 3), 200, np.uint8)),
            ("test", "b/y.png", np.full((8, 8, 3), 7, np.uint8)),
        ]:
            (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / split / name).write_bytes(fakes.png(pixels))
        (tmp_path / "train" / "notes.txt").write_text("no picture")
        (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
        (tmp_path / "train" / "0empty").mkdir()
        return tmp_path

    def test_they_become_squares_of_colour(self, folder: Path) -> None:
        task = images(str(folder), size=8)
        assert task.inputs == (3, 8, 8) and task.outputs == 2
        # sorted by path: a/2.png, a/deep/er/1.PNG, b/x.png; a picture of a single colour keeps it at any size
        assert task.train["y"].tolist() == [0, 0, 1] and task.test["y"].tolist() == [1]
        assert task.train["x"][:, :, 0, 0].tolist() == [[40, 40, 40], [10, 20, 30], [200, 200, 200]]
        assert torch.equal(task.train["x"], task.train["x"][:, :, :1, :1].expand(-1, -1, 8, 8))

    def test_another_size_is_another_cache(self, folder: Path) -> None:
        assert images(str(folder), size=8).inputs == (3, 8, 8)
        assert images(str(folder), size=5).inputs == (3, 5, 5)

    def test_they_may_lie_below_images(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "images").mkdir()
        for split in ("train", "test"):
            (folder / split).rename(tmp_path / "images" / split)
        monkeypatch.setenv("FL_SIM_DATA", str(tmp_path))
        assert images().train["y"].tolist() == [0, 0, 1]

    def test_a_class_of_the_test_set_alone_is_refused(self, folder: Path) -> None:
        (folder / "test" / "b").rename(folder / "test" / "c")
        with pytest.raises(ValueError, match=r"test/c: a class that train lacks; train has a, b"):
            images(str(folder))

    def test_a_size_below_one_is_refused(self, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"task\.size = 0"):
            images(str(folder), size=0)


@pytest.mark.slow
def test_the_real_cifar10(shared_data: Path) -> None:
    """Statistics of shared/data/README.md: 5000 and 1000 per class, mean .4913 .4821 .4465, std .2452 .2428 .2606."""
    task = cifar10(str(shared_data))
    assert (
        np.bincount(task.train["y"].numpy()).tolist() == [5000] * 10
        and np.bincount(task.test["y"].numpy()).tolist() == [1000] * 10
    )
    x = task.train["x"].double() / 255
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.tensor([0.4913, 0.4821, 0.4465]).double(), atol=2e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.tensor([0.2452, 0.2428, 0.2606]).double(), atol=2e-4, rtol=0)


@pytest.mark.slow
def test_the_real_mnist(shared_data: Path) -> None:
    """539 writers of 19 to 131 digits each (shared/data/README.md), mean .1307, std .3081, first labels 5 0 4 1 9."""
    task = mnist(str(shared_data))
    assert task.clients is not None
    sizes = np.bincount(task.clients)
    assert (len(sizes), sizes.min(), sizes.max(), task.num_train, len(task.test["y"])) == (539, 19, 131, 60000, 10000)
    assert task.train["y"][:5].tolist() == [5, 0, 4, 1, 9]
    x = task.train["x"].double() / 255
    assert abs(x.mean() - 0.1307) < 5e-5 and abs(x.std() - 0.3081) < 5e-5
