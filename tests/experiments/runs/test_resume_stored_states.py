"""Runs whose clients' states are in segments go on, and are forked, as those whose states are in checkpoints."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import run
from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.resume import ready
from fl_sim import load, tree
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG
from fl_sim.rounds import checkpoint
from fl_sim.states import client_states
from fl_sim.states.segment_files import numbers, path_of
from fl_sim.states.stored_states import StoredStates

SETTINGS: dict[str, Any] = {
    "clients": 6,
    "cohort": 4,
    "model": "lr",
    "local": {"batch_size": 64, "steps": 2},
    "rounds": 4,
    "evaluate_every": 4,
    "block_size": 2,
    "engine": "loop",
    "checkpoint_every": 1,
    "strategy": "tests.conformance.stateful:Visits",
}


def trained(out: Path, **more: Any) -> Path:
    """The folder of a run, which is done without the command: to read its words takes as long as to train."""
    config = make(**{**SETTINGS, "out": str(out), **more})
    execute(ready(config), quiet=True)
    return only(out)


def forked(begin: Path, out: Path) -> Path:
    """The folder of a fork of a run, at round 2, with its settings."""
    execute(ready(make(str(begin / CONFIG), fork=f"{begin}@2", out=str(out))), quiet=True)
    return only(out)


def resumed(folder: Path, **more: Any) -> None:
    """Let a run go on."""
    _, error = run.run_on(folder, make(str(folder / CONFIG), **more), True, False)
    assert error is None


def only(folder: Path) -> Path:
    """The one run in a folder."""
    [found] = folder.iterdir()
    return found


def end_of(run_folder: Path) -> tuple[list[str], dict[int, str]]:
    """(digests of the model by round, of the last states by client)."""
    found, _ = checkpoint.latest(run_folder)
    assert found is not None
    return list(load(run_folder).rounds["digest"]), {c: tree.digest(state) for c, state in found.states.items()}


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose states are in its checkpoints, as in runs of older versions; it keeps all."""
    folder = trained(tmp_path_factory.mktemp("memory"), checkpoint_keep=0)
    assert not (folder / "states").exists()
    return folder


@pytest.fixture
def storing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is stored in segments."""
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)


@pytest.fixture
def stored(whole: Path, tmp_path: Path, storing: None) -> Path:
    """The same run in segments, which stays so."""
    return shutil.copytree(whole, tmp_path / "stored" / "run").parent / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_states, "MEMORY_BYTES", 0)
        return trained(tmp_path_factory.mktemp("stored"), checkpoint_keep=0)


def test_a_stored_run_has_the_bits_of_one_in_memory_and_can_be_forked_and_made_longer(
    in_memory: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert end_of(stored) == end_of(in_memory) and numbers(stored / "states") == [1]
    size = path_of(stored / "states", 1).stat().st_size
    digests, states = end_of(in_memory)
    for begin, limit in ((stored, 0), (stored, 1 << 24), (in_memory, 0)):
        monkeypatch.setattr(client_states, "MEMORY_BYTES", limit)
        fork = forked(begin, tmp_path / f"{begin.parent.name} {limit}")
        assert end_of(fork) == (digests[2:], states)
        assert bool(numbers(fork / "states")) == (limit == 0)
    assert path_of(stored / "states", 1).stat().st_size == size  # a fork writes nothing into the other run
    old, ends = shutil.copytree(in_memory, tmp_path / "old"), []
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)
    for folder in (stored, old):
        resumed(folder, rounds=6, checkpoint_keep=1)
        ends.append(end_of(folder))
    assert ends[0] == ends[1] and len(ends[0][0]) == 7 and ends[0][0][:4] == digests[:4]


def damaged(how: str, folder: Path, place: Any) -> None:
    """Damage the segment in which a state is."""
    path = path_of(folder, place.segment)
    if how == "missing":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[place.offset + place.length - 64] ^= 1
    path.write_bytes(data[: place.offset + place.length - 1] if how == "cut" else data)


@pytest.mark.parametrize("how, left", [("flipped", 3), ("cut", 3), ("missing", None)])
def test_a_damaged_segment_is_named_and_the_checkpoint_before_it_is_used(
    how: str, left: int | None, in_memory: Path, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, _ = checkpoint.latest(stored)
    assert last is not None and isinstance(last.states, StoredStates)
    damaged(how, stored / "states", max(last.states.places.values()))
    before, wrong = checkpoint.latest(stored)
    assert (before.round if before else None) == left and "000001.seg: the state of client" in wrong[0]
    if how == "flipped":
        with pytest.raises(ConfigError, match=r"000001\.seg: the state of client"):
            ready(make(str(stored / CONFIG), fork=f"{stored}@4", rounds=6))
        resumed(stored)
        assert "the checkpoint of round 3 is used" in capsys.readouterr().err
        assert end_of(stored) == end_of(in_memory)


def test_a_state_that_is_damaged_while_a_run_goes_on_fails_the_run_and_no_client(
    tmp_path: Path, storing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def damaging(folder: Path, new: checkpoint.Checkpoint, keep: int) -> Path:
        path = save(folder, new, keep)
        if new.round == 2:
            segment = path_of(folder / "states", 1)
            segment.write_bytes(bytes(segment.stat().st_size))
        return path

    monkeypatch.setattr(checkpoint, "save", damaging)
    log = load(trained(tmp_path, failures="tolerate:0.9"))
    assert "Damaged" in log.summary["error"] and "its header is another one" in log.summary["error"]
    assert log.summary["status"] == "failed" and set(log.clients["status"]) == {"completed"}


def test_a_state_that_is_not_on_the_disk_is_in_no_checkpoint(
    tmp_path: Path, storing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, to_replace = StoredStates.sync, os.replace

    def synced(states: StoredStates) -> None:
        sync(states)
        order.append("states")

    def replaced(old: Any, new: Any) -> None:
        to_replace(old, new)
        order.extend(["checkpoint"] if Path(new).name.startswith("round-") else [])

    monkeypatch.setattr(StoredStates, "sync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    trained(tmp_path, rounds=2)
    assert order == ["states", "checkpoint"] * 2
