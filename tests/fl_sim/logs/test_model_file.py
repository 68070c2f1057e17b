"""The saved model is read with its digest checked: no flipped bit is returned in silence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fl_sim import tree
from fl_sim.logs import model_file

MODEL = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1 + 2j], dtype=torch.complex128)}


def saved(folder: Path, trained: str = "", same: bool = True) -> Path:
    """A model's file."""
    model_file.write(folder / "m", MODEL, 3, trained, same)
    return folder / "m"


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    for trained, same in (("", True), (tree.digest(MODEL), True), ("a" * 64, False)):
        found = model_file.read(saved(tmp_path, trained, same), {3: trained or "other"})
        assert tree.digest(found) == tree.digest(MODEL)


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    assert len({saved(tmp_path, tree.digest(MODEL)).read_bytes() for _ in range(12)}) == 1


def test_every_flipped_bit_of_a_tensor_is_seen(tmp_path: Path) -> None:
    file = saved(tmp_path, tree.digest(MODEL))
    good = file.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for bit in range(8 * start, 8 * len(good), 5):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged or replaced"):
            model_file.read(file, {})


def test_the_model_of_another_run_is_seen(tmp_path: Path) -> None:
    file = saved(tmp_path, tree.digest(MODEL))
    with pytest.raises(ValueError, match=f"{'f' * 12}... is recorded"):
        model_file.read(file, {3: "f" * 64})


def test_a_file_of_an_older_version_is_compared_with_the_log(tmp_path: Path) -> None:
    file = tmp_path / "m"
    save_file({"w": MODEL["w"]}, file, {"round": "3"})
    assert set(model_file.read(file, {3: tree.digest(load_file(file))})) == set(model_file.read(file, {})) == {"w"}
    with pytest.raises(ValueError, match="damaged or replaced"):
        model_file.read(file, {3: "f" * 64})
    save_file({"w": MODEL["w"], "tied": MODEL["w"].clone()}, file, {"round": "3"})
    with pytest.warns(UserWarning, match="cannot be checked"):
        assert len(model_file.read(file, {3: tree.digest({"w": MODEL["w"]})})) == 2


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_what_is_no_model_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match="no model can be read"):
        model_file.read(tmp_path / "m", {})
