"""A device's samples are computed once; where they cannot be kept, that is said."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.device.partition import DevicePartition
from clients.device.sample_cache import cached_samples
from fl_sim import Task, from_arrays

SPEC: Any = {"task": "digits", "partition": "iid"}


def computed(function: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the samples of a task with this loss are computed for two messages."""
    task, calls = from_arrays(np.eye(4), [0, 1, 0, 1], loss=function, metrics={}), list[int]()
    monkeypatch.setenv("FL_SIM_CACHE", str(cache))

    def compute() -> tuple[Task, DevicePartition]:
        calls.append(1)
        return task, DevicePartition(3, 8, 3, 1)

    for _ in range(2):
        found, own = cached_samples(SPEC, 3, compute)
        assert found.train["x"].tolist() == task.train["x"].tolist() and own.sizes(3) == (3, 1)
    return len(calls)


def test_samples_that_cannot_be_kept_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert computed(len, tmp_path / "good", monkeypatch) == 1 and capsys.readouterr().err == ""
    assert computed(lambda outputs, batch: outputs, tmp_path / "local", monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"note: samples of client 3 are not kept in {tmp_path}/local/device-")
    assert told.endswith("; they are computed again for each message)\n")
    (tmp_path / "file").write_text("no folder")
    assert computed(len, tmp_path / "file", monkeypatch) == 2
    assert "(FileExistsError: " in capsys.readouterr().err


class Bomb:
    """Its unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.file,)


def test_only_samples_that_this_users_key_signed_are_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert computed(len, tmp_path / "cache", monkeypatch) == 1
    [file] = (tmp_path / "cache").glob("device-*/own.pickle")
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert computed(len, tmp_path / "cache", monkeypatch) == 1  # once anew, then from the mended cache
    assert "this user's key did not sign it, or it was damaged" in capsys.readouterr().err
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "other user"))
    assert computed(len, tmp_path / "cache", monkeypatch) == 1
    assert not (tmp_path / "exploded").exists()
    (tmp_path / "other user" / "key").chmod(0o644)
    assert computed(len, tmp_path / "cache", monkeypatch) == 2
    assert "others can read or write" in capsys.readouterr().err
