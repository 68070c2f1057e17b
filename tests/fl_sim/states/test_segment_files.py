"""Segments: records that are appended are read as they were; damage is refused by name; files in use stay."""

import os
from pathlib import Path

import pytest
import torch

from fl_sim.errors import Damaged
from fl_sim.states import segment_files
from fl_sim.states.segment_files import Place, Segments, check, numbers, path_of, read


def test_states_are_read_while_others_are_written_and_none_sees_anothers_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_files, "SEGMENT_BYTES", 600_000)
    segments, folder = Segments(tmp_path / "states"), tmp_path / "states"
    states = {c: {"w": torch.full((size,), float(c))} for c, size in enumerate((100_000, 3, 50_000, 40_000))}
    places = {}
    for client, state in states.items():
        places[client] = segments.append(client, state)
        for other in places:  # both the mapped and the small ones, in each of the segments so far
            found = read(folder, other, places[other])["w"]
            assert torch.equal(found, states[other]["w"])
            found.zero_()
            check(folder, other, places[other])
    segments.sync()
    segments.close()
    assert numbers(folder) == [1, 2] and [place.segment for place in places.values()] == [1, 1, 1, 2]
    again = Segments(folder)
    assert again.append(0, states[1]).segment == 3  # never after what another process had written
    again.remove({2})
    assert numbers(folder) == [2, 3]
    again.close()


def test_damage_is_refused_by_file_and_client(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    place = segments.append(4, {"w": torch.arange(8.0)})
    other = segments.append(5, {"w": torch.arange(8.0)})
    segments.close()
    path = path_of(tmp_path, 1)
    with pytest.raises(Damaged, match=r"000001\.seg: the state of client 5 at byte 0 is damaged: its header"):
        read(tmp_path, 5, place)  # swapped
    with pytest.raises(Damaged, match="the file is cut short"):
        check(tmp_path, 5, other._replace(length=1 << 60))
    data = bytearray(path.read_bytes())
    data[place.offset + place.length - 64] ^= 1
    path.write_bytes(data)
    for reads in (read, check):
        with pytest.raises(Damaged, match="client 4 at byte 0 is damaged: its checksum is another one"):
            reads(tmp_path, 4, place)
    check(tmp_path, 5, other)
    os.truncate(path, other.offset + other.length - 1)
    with pytest.raises(Damaged, match="client 5 .* is damaged: the file is cut short"):
        read(tmp_path, 5, other)
    path.unlink()
    with pytest.raises(Damaged, match="the state of client 5 cannot be read .*No such file"):
        read(tmp_path, 5, other)
    with pytest.raises(Damaged):
        read(tmp_path, 5, Place(1 << 62, 0, 64, 0))


def test_a_disk_that_cannot_be_written_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(tmp_path)
    first = segments.append(1, {"w": torch.ones(3)})
    write = os.pwrite

    def full(file: int, data: memoryview, offset: int) -> int:
        if offset > first.length:
            raise OSError(28, "No space left on device")
        return write(file, data[:100], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", lambda file, buffers, offset: write(file, b"".join(buffers)[:70], offset))
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            segments.append(2, {"w": torch.zeros(300)})
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", lambda file, buffers, offset: write(file, b"".join(buffers)[:70], offset))
        third = segments.append(3, {"w": torch.full((4,), 2.0)})
        many = {f"{n}": torch.tensor(float(n)) for n in range(700)}
        place = segments.append(4, many)
    assert all(torch.equal(x, many[k]) for k, x in read(tmp_path, 4, place).items())
    assert float(read(tmp_path, 1, first)["w"].sum()) == 3 and float(read(tmp_path, 3, third)["w"].sum()) == 8

    def failing(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        segments.sync()
    segments.close()
