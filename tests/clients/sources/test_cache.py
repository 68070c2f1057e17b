"""The cache of decoded samples: damage is seen and blamed on the cache, older layouts are written anew."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from clients.sources import cache


class Decoder:
    """A source of few samples that counts how often it is decoded."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "raw").write_bytes(b"raw")
        self.calls, self.folder = 0, folder
        self.source = cache.Source(folder, (folder / "raw",), self.decode)

    def decode(self) -> cache.Arrays:
        """Forty pictures."""
        self.calls += 1
        x, y = np.arange(40 * 4, dtype=np.uint8).reshape(40, 1, 2, 2), np.arange(40, dtype=np.int64) % 3
        return {"train_x": x, "train_y": y, "test_x": x[:3], "test_y": y[:3], "classes": np.array(["a", "b", "c"])}


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A source, with a cache of its own."""
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    return Decoder(tmp_path / "raw-data")


def only_folder(tmp_path: Path) -> Path:
    """The folder of the one data set in the cache."""
    [folder] = (tmp_path / "cache").iterdir()
    return folder


def test_samples_are_decoded_once(decoder: Decoder) -> None:
    first, second = (cache.cached("t", decoder.source) for _ in range(2))
    assert decoder.calls == 1 and first.keys() == second.keys() == decoder.decode().keys()
    assert all(np.array_equal(first[k], second[k]) for k in first) and isinstance(second["train_x"], np.memmap)


@pytest.mark.parametrize("name", ["train_x.npy", "train_y.npy", "test_x.npy", "classes.npy", "checksums.json"])
def test_every_flip_is_seen_and_blamed_on_the_cache(name: str, decoder: Decoder, tmp_path: Path) -> None:
    expected = cache.cached("t", decoder.source)
    file = only_folder(tmp_path) / name
    good = file.read_bytes()
    for number, bit in enumerate(range(3, 8 * len(good), max(len(good), 64))):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        with pytest.warns(UserWarning, match=r"FL_SIM_CACHE.*the cache .*t is decoded anew from"):
            found = cache.cached("t", decoder.source)
        assert decoder.calls == number + 2
        assert all(np.array_equal(found[k], expected[k]) for k in expected)
    assert file.read_bytes() == good


def test_a_file_that_is_missing_is_seen(decoder: Decoder, tmp_path: Path) -> None:
    cache.cached("t", decoder.source)
    (only_folder(tmp_path) / "classes.npy").unlink()
    with pytest.warns(UserWarning, match=r"lacks classes.npy"):
        assert cache.cached("t", decoder.source)["classes"].tolist() == ["a", "b", "c"]


def test_an_older_layout_is_written_anew(decoder: Decoder, tmp_path: Path) -> None:
    cache.cached("t", decoder.source)
    sums = only_folder(tmp_path) / "checksums.json"
    sums.unlink()  # as before there were checksums
    cache.cached("t", decoder.source)
    facts = json.loads(sums.read_text())
    sums.write_text(json.dumps({**facts, "layout": 1}))
    cache.cached("t", decoder.source)
    assert decoder.calls == 3 and json.loads(sums.read_text()) == facts


def test_a_cache_that_holds_objects_is_not_unpickled(decoder: Decoder, tmp_path: Path) -> None:
    cache.cached("t", decoder.source)
    folder = only_folder(tmp_path)
    np.save(folder / "train_y.npy", np.array([Path("x")], dtype=object), allow_pickle=True)
    facts = json.loads((folder / "checksums.json").read_text())
    facts["crc32"]["train_y.npy"] = cache._checksum(folder / "train_y.npy")
    (folder / "checksums.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match="Object arrays cannot be loaded"):
        assert len(cache.cached("t", decoder.source)["train_y"]) == 40


def test_the_check_takes_little_time(tmp_path: Path) -> None:
    """15 MB in less than 0.1 s of this process: 154 MB took 0.07 s; a busy machine is given ten times that."""
    file = tmp_path / "x"
    file.write_bytes(bytes(15_000_000))
    start = time.process_time()
    cache._checksum(file)
    assert time.process_time() - start < 0.1
