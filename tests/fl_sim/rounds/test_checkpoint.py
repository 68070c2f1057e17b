"""Checkpoints: written whole or not at all, read as they were saved; damage is detected."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fl_sim import tree
from fl_sim.rounds import checkpoint
from fl_sim.rounds.checkpoint import Checkpoint, Damaged


def example(number: int) -> Checkpoint:
    """A checkpoint of round ``number`` with tensors that share memory, states and attributes of a strategy."""
    shared = torch.arange(6.0, dtype=torch.float64)
    model = {"a.weight": shared.reshape(2, 3), "b": shared[:2], "n": torch.tensor(number)}
    states = {7: {"m/x": torch.ones(2)}, 3: {}}
    return Checkpoint(
        number,
        model,
        number,
        {"moments": {"w": {"x": torch.ones(1)}}, "k": [1]},
        states,
        {"rounds.jsonl": 10},
        {"seconds": 0.5},
    )


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    before = example(4)
    after = checkpoint.read(checkpoint.save(tmp_path, before))
    assert tree.digest(after.model) == tree.digest(before.model)
    assert set(after.states) == {3, 7} and torch.equal(after.states[7]["m/x"], torch.ones(2)) and after.states[3] == {}
    assert (after.round, after.model_round, after.positions, after.facts) == (
        4,
        4,
        {"rounds.jsonl": 10},
        {"seconds": 0.5},
    )
    assert after.strategy["k"] == [1] and torch.equal(after.strategy["moments"]["w"]["x"], torch.ones(1))


def test_each_state_keeps_the_order_of_its_names(tmp_path: Path) -> None:
    x = torch.tensor([1j, 2.0], dtype=torch.complex128)
    states = {3: {"b": x, "a": x}, 10: {"a": x, "b": x}, 4: {"b": x, "c": x, "a": x}, 5: {"c": x}}
    found = checkpoint.read(checkpoint.save(tmp_path, replace(example(1), states=states))).states
    assert {client: list(state) for client, state in found.items()} == {c: list(state) for c, state in states.items()}
    assert all(torch.equal(found[c][k], x) for c, state in states.items() for k in state)


def test_the_last_two_are_kept_and_nothing_else_lies_about(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11, 11):
        checkpoint.save(tmp_path, example(number))
    assert [checkpoint.round_of(p) for p in checkpoint.listed(tmp_path)] == [10, 11]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    for number in (12, 13):
        checkpoint.save(tmp_path, example(number), keep=0)
    assert [checkpoint.round_of(p) for p in checkpoint.listed(tmp_path)] == [10, 11, 12, 13]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    good = checkpoint.save(tmp_path, example(1))
    strays = [
        f"round-x-{'0' * 64}",
        "round-000003",
        "round-000009-copy",
        f"{good.stem} (1)",
        f"round-{7:06d}-{'a' * 64}",
    ]
    for name in strays[:-1]:
        (good.parent / f"{name}.safetensors").write_bytes(b"x")
    (good.parent / f"{strays[-1]}.safetensors").mkdir()
    (good.parent / ".round-000002.123").write_bytes(b"left by a process that was killed")
    assert checkpoint.listed(tmp_path) == [good] and checkpoint.latest(tmp_path)[1] == []
    checkpoint.save(tmp_path, example(2), keep=1)
    assert len(checkpoint.listed(tmp_path)) == 1 and not list(good.parent.glob(".round-*"))
    assert len(list(good.parent.iterdir())) == 1 + len(strays)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], lambda b: b""])
def test_a_damaged_one_is_seen_and_the_one_before_it_used(tmp_path: Path, damage: object) -> None:
    checkpoint.save(tmp_path, example(1))
    last = checkpoint.save(tmp_path, example(2))
    last.write_bytes(damage(last.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Damaged, match="checksum"):
        checkpoint.read(last)
    found, wrong = checkpoint.latest(tmp_path)
    assert found is not None and found.round == 1 and len(wrong) == 1
    assert checkpoint.latest(tmp_path, 2)[0] is None and checkpoint.latest(tmp_path / "none") == (None, [])


def test_a_write_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, example(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, example(2))
    assert [p.name.split("-")[1] for p in (tmp_path / "checkpoints").iterdir()] == ["000001"]
