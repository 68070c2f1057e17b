"""A device's stored state comes back with its names in their order, and every dtype."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clients.device.state import States


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    states = States(tmp_path, "run", 1)
    state = {
        "z": torch.ones(2),
        "a/b": torch.tensor([1j, 2.0], dtype=torch.complex128),
        "": torch.zeros(0, dtype=torch.bool),
    }
    states.save(3, state)
    found = states.load(3)
    assert list(found) == list(state)
    assert all(found[k].dtype == x.dtype and torch.equal(found[k], x) for k, x in state.items())


def test_a_file_of_an_older_version_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    states = States(tmp_path, "run", 1)
    states.folder.mkdir(parents=True)
    file = states.folder / "round-00000002.safetensors"
    save_file({"n": torch.ones(1)}, file)
    assert torch.equal(states.load(2)["n"], torch.ones(1))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"accepted in round 2 is not on this device's disk"):
        states.load(2)


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    states = States(tmp_path, "run", 1)
    states.save(3, {"w": torch.arange(4.0), "c": torch.tensor([1j]), "h": torch.ones(2, dtype=torch.bfloat16)})
    [file] = states.folder.iterdir()
    good = file.read_bytes()
    for bit in range(8 * (8 + int.from_bytes(good[:8], "little")), 8 * len(good), 7):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=r"its digest is another; it was damaged"):
            states.load(3)
    file.write_bytes(good.replace(b'[\\"c\\"]', b'[\\"d\\"]'))  # the complex leaf would stay a pair of numbers
    with pytest.raises(ValueError, match=r"its digest is another"):
        states.load(3)
