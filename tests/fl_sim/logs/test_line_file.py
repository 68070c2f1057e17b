"""Lines that may wait in memory: whole, in order, and written when anything else is."""

import json
from pathlib import Path

import pytest

from fl_sim import RoundLog
from fl_sim.logs import line_file
from fl_sim.logs.line_file import LineFile


def test_lines_wait_until_their_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(line_file.time, "monotonic", lambda: clock[0])
    file = LineFile(tmp_path / "a.jsonl")
    file.wait = 0.25
    file.write(b"1\n")
    clock[0] = 0.2
    file.write(b"2\n")
    assert (tmp_path / "a.jsonl").read_bytes() == b"" and file.size == 4
    clock[0] = 0.25
    file.write(b"3\n")
    assert (tmp_path / "a.jsonl").read_bytes() == b"1\n2\n3\n"
    file.write(b"4\n")
    file.cut(6)
    file.write(b"5\n")
    file.close()
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"1\n2\n3\n5\n"


def test_many_bytes_do_not_wait(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.jsonl")
    file.wait = 1e9
    file.write(b"x" * line_file.MOST_BYTES)
    assert (tmp_path / "a.jsonl").stat().st_size == 0
    file.write(b"\n")
    assert (tmp_path / "a.jsonl").stat().st_size == line_file.MOST_BYTES + 1
    file.close()


def test_lines_of_a_log_wait_for_anything_else_that_is_written(tmp_path: Path) -> None:
    log = RoundLog.create(tmp_path, "waits", "")
    rounds, clients = log.path / "rounds.jsonl", log.path / "clients.jsonl"
    log.lines_wait(1e9)
    for number in range(3):
        log.round({"round": number})
        log.clients([{"round": number, "client": 0}])
    assert rounds.read_bytes() == clients.read_bytes() == b""
    log.event("note")
    assert len(rounds.read_text().splitlines()) == len(clients.read_text().splitlines()) == 3
    log.round({"round": 3})
    assert log.positions["rounds.jsonl"] == rounds.stat().st_size
    log.round({"round": 4})
    log.amend({"round": 4, "digest": "d"})
    log.round({"round": 5})
    assert [row["round"] for row in log.rounds_so_far()] == [0, 1, 2, 3, 4, 5]
    log.round({"round": 6})
    log.lines_wait(0)
    log.round({"round": 7})
    rows = [json.loads(line) for line in rounds.read_text().splitlines()]
    assert [row["round"] for row in rows] == list(range(8)) and rows[4]["digest"] == "d"
    log.close()
