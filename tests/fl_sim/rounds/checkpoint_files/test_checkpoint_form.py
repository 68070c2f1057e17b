"""The form of checkpoints: states of any form are as they were; a stranger's file runs no code."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as write_tensors

from fl_sim.errors import ConfigError
from fl_sim.rounds.checkpoint_files.checkpoint_form import Checkpoint, Malformed, from_bytes, to_bytes
from tests.fl_sim.rounds.checkpoint_files.bombs import Bomb


class Odd:
    """An attribute that only pickle can hold."""

    def __init__(self, values: list[float]) -> None:
        self.values = values


def example(strategy: dict[str, Any]) -> Checkpoint:
    """A checkpoint with these attributes of a strategy."""
    return Checkpoint(3, {"w": torch.ones(2)}, 3, strategy)


def test_states_of_any_form_are_read_as_they_were() -> None:
    """Clients 9 and 2 have the same form and are stacked; 5 has another shape, 4 another dtype, 1 the other order."""
    pair = torch.tensor([[1 + 2j, float("nan")]], dtype=torch.complex128)
    states: dict[int, Any] = {
        9: {"a/b": torch.tensor([1.0, -0.0]), "n": torch.tensor(3)},
        2: {"a/b": torch.tensor([2.0, 5e-324]), "n": torch.tensor(4)},
        5: {"a/b": torch.ones(3), "n": torch.tensor(1)},
        4: {"a/b": torch.ones(2, dtype=torch.float64), "n": torch.tensor(1)},
        1: {"n": torch.tensor(1), "a/b": torch.ones(2)},
        7: {},
        8: {"z": pair, "e": torch.empty(0, 4), "b": torch.tensor([True])},
    }
    found = from_bytes(to_bytes(Checkpoint(1, {"m": torch.ones(1)}, 1, {}, states))).states
    assert list(found) == sorted(states)
    for client, state in states.items():
        assert list(found[client]) == list(state)
        for key, value in state.items():
            new = found[client][key]
            assert (new.dtype, new.shape) == (value.dtype, value.shape)
            assert new.numpy().tobytes() == value.numpy().tobytes()
    assert found[9]["n"].untyped_storage().nbytes() == 8  # a state keeps no other in memory


def test_an_odd_attribute_is_read_with_the_key_that_signed_it_or_with_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [1.0]
    data = to_bytes(example({"odd": Odd(shared), "plain": shared, "k": 2}))
    mine = from_bytes(data)
    assert mine.strategy["odd"].values is mine.strategy["plain"] and mine.untrusted == ""
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path))
    other = from_bytes(data)
    assert dict(other.strategy) == {"plain": [1.0], "k": 2}
    assert "the attributes odd of the strategy as a pickle" in other.untrusted and "--trust_pickle" in other.untrusted
    assert from_bytes(data, trust_pickle=True).strategy["odd"].values == [1.0]


def test_a_pickle_signed_for_other_text_is_not_read() -> None:
    """The pickle refers to objects of the JSON beside it, so that both are signed together."""
    data = to_bytes(example({"odd": Odd([]), "k": 2}))
    assert from_bytes(data).untrusted == ""
    assert from_bytes(data.replace(b'[\\\\\\"k\\\\\\", 2]', b'[\\\\\\"k\\\\\\", 3]')).untrusted != ""


def test_where_no_key_can_be_made_a_warning_says_what_is_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "home"))
    with pytest.warns(UserWarning, match="FL_SIM_HOME: the key .*home/key .* --trust_pickle"):
        data = to_bytes(example({"odd": Odd([1.0])}))
    assert "nobody signed it" in from_bytes(data).untrusted


def test_plain_attributes_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "none"))
    assert from_bytes(to_bytes(example({"k": [1, (2,)]}))).strategy == {"k": [1, (2,)]}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("form", [1, 2])
def test_a_bomb_does_not_explode(form: int, tmp_path: Path) -> None:
    bomb = pickle.dumps({"k": Bomb(tmp_path / "exploded")})
    header: dict[str, Any] = {"round": 1, "model_round": 1, "positions": {}, "facts": {}}
    if form == 1:
        name = "strategy"
        header |= {"clients": [], "order": []}
    else:
        name = "pickle"
        header |= {"format": 2, "model": [], "states": [], "strategy": "[]", "odd": ["k"], "hmac": "0" * 64}
    tensors = {name: torch.frombuffer(bytearray(bomb), dtype=torch.uint8)}
    data = write_tensors(tensors, {"checkpoint": json.dumps(header)})
    assert "can run any code" in from_bytes(data).untrusted and not (tmp_path / "exploded").exists()
    from_bytes(data, trust_pickle=True)
    assert (tmp_path / "exploded").exists()  # the bomb is real


def test_other_versions_and_other_files_are_named() -> None:
    data = to_bytes(example({}))
    with pytest.raises(ConfigError, match=r"format 4.*update the project"):
        from_bytes(data.replace(b'\\"format\\": 2', b'\\"format\\": 4'))
    nested = "[" * 5000 + "]" * 5000
    for wrong in (
        b"",
        b"\xff" * 40,
        write_tensors({}, {"other": "x"}),
        write_tensors({}, {"checkpoint": "{}"}),
        write_tensors({}, {"checkpoint": nested}),
        data.replace(b"model/w", b"model/v"),
    ):
        with pytest.raises(Malformed, match="no checkpoint of this project"):
            from_bytes(wrong)
