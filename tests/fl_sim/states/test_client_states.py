"""States of clients, in memory or in segments: the same mapping, what was marked, and what is deleted when."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from fl_sim.states import client_states, segment_files
from fl_sim.states.client_states import ClientStates, states_of
from fl_sim.states.segment_files import numbers
from fl_sim.states.stored_states import StoredStates
from fl_sim.tree import Tree


def state(value: float, size: int = 4) -> Tree:
    """A state."""
    return {"s": torch.full((size,), value)}


def values(states: object) -> dict[int, float]:
    """Client -> the number in its state."""
    assert isinstance(states, ClientStates | StoredStates | dict)
    return {client: float(states[client]["s"][0]) for client in states}


@pytest.mark.parametrize("where", ["in memory", "stored", "stored in the middle of a round"])
def test_what_was_marked_stays_while_states_change(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_states, "MEMORY_BYTES", {"in memory": 1 << 24, "stored": 0}.get(where, 80))
    states = ClientStates()
    states.keep_in(tmp_path)
    for client in range(5):  # 80 bytes
        states[client] = state(client)
    states.mark()
    before = states_of(states, [1, 2, 9])
    states[1] = state(10.0)
    states[7] = state(7.0)
    states[1] = state(11.0)
    del states[2]
    assert values(states) == {0: 0, 1: 11, 3: 3, 4: 4, 7: 7} and 2 not in states and len(states) == 5
    assert values(states.marked) == {c: c for c in range(5)} and values(before) == {1: 1, 2: 2}
    assert isinstance(states.marked, StoredStates) == (where != "in memory") == bool(numbers(tmp_path / "states"))
    assert values(pickle.loads(pickle.dumps(states.snapshot()))) == values(copy.deepcopy(states.snapshot()))
    states.mark()
    assert values(states.marked) == values(states) == values(states.snapshot())
    states.close()


def test_a_run_without_a_folder_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)
    states = ClientStates()
    states[0] = kept = state(1.0)
    states.mark()
    assert states[0] is kept and isinstance(states.snapshot(), dict)
    for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "b"):  # one comes later, another, and the same again
        folder.mkdir(exist_ok=True)
        states.keep_in(folder)
        assert isinstance(states.snapshot(), StoredStates) and values(states) == values(states.marked) == {0: 1}
        assert numbers(folder / "states") == [1]
    states.close()


def test_segments_that_nothing_names_go_and_half_empty_ones_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments of three records each; in each round two of six clients get a new state."""
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)
    monkeypatch.setattr(segment_files, "SEGMENT_BYTES", 3 * 256 - 1)
    states, folder, kept = ClientStates(), tmp_path / "states", list[StoredStates]()
    states.keep_in(tmp_path)
    expected = {}
    for server_round in range(12):
        for client in (0, server_round % 6):
            expected[client] = 100.0 * server_round + client
            states[client] = state(expected[client])
        found = states.snapshot(compact=True)
        assert isinstance(found, StoredStates) and values(found) == expected
        kept = [*kept[-1:], found]
        was = [values(each) for each in kept]
        states.mark()
        states.forget_all_but({number for each in kept for number in each.named})
        assert [values(each) for each in kept] == was  # what kept checkpoints name can be read
        found.check()
        assert len(numbers(folder)) <= 6, numbers(folder)
    assert values(states) == expected and len(expected) == 6 and min(numbers(folder)) > 3
    states.close()


def test_states_are_taken_over_by_reference_in_their_own_run_and_copied_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)
    (tmp_path / "fork").mkdir()
    first, again, fork = ClientStates(), ClientStates(), ClientStates()
    for states, name in ((first, "."), (again, "."), (fork, "fork")):
        states.keep_in(tmp_path / name)
    first[3], first[8] = state(3.0), state(8.0)
    found = first.snapshot()
    assert isinstance(found, StoredStates)
    index = found.index()
    read = StoredStates.of_index(tmp_path / "states", index)
    again.restore(read)
    fork.restore(read)
    assert values(again) == values(fork) == values(again.marked) == values(fork.marked) == {3: 3, 8: 8}
    assert again.snapshot().places == read.places and numbers(tmp_path / "states") == [1]  # type: ignore[attr-defined]
    again[3] = state(4.0)  # goes into a segment of its own
    first[8] = state(9.0)  # what a killed process wrote at last is no part of what goes on
    assert values(again) == {3: 4, 8: 8} and numbers(tmp_path / "states") == [1, 2]
    assert values(fork) == {3: 3, 8: 8} and numbers(tmp_path / "fork" / "states") == [1]
    for wrong in (index[:, :4], index.double(), -index):
        with pytest.raises(ValueError, match="no index of states"):
            StoredStates.of_index(tmp_path, wrong)
    for states in (first, again, fork):
        states.close()
