"""Reading a log back: rows of clients, which may be millions, are read when they are first asked for."""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

from fl_sim import RoundLog, load
from fl_sim.grids import no_answer
from fl_sim.logs import reader


def run_of(folder: Path, clients: int = 3) -> Path:
    with RoundLog.create(folder, "run", "seed = 0\n") as log:
        log.round({"round": 0, "loss": 1.0})
        log.clients([{"round": 1, "client": c, "phase": "train", "status": "completed"} for c in range(clients)])
        log.names({"clients": ["Basel", "Bern", "Chur"]})
        log.event("start", engine="loop")
        log.summary({"status": "completed"})
    return log.path


def test_rows_of_clients_are_read_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_of(tmp_path)
    whole, files = load(path), list[str]()
    plain = reader._rows
    monkeypatch.setattr(reader, "_rows", lambda file, end: files.append(file.name) or plain(file, end))
    log = reader.read_back(path)
    assert files == ["rounds.jsonl", "events.jsonl"] and repr(log) == repr(whole)
    assert log.clients.equals(whole.clients) and log["clients"] is log.clients
    assert log.clients["client_name"].tolist() == ["Basel", "Bern", "Chur"]
    assert files == ["rounds.jsonl", "events.jsonl", "clients.jsonl"]


def test_they_are_those_that_were_written_when_the_log_was_read(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    log, late = reader.read_back(path), reader.read_back(path)
    with (path / "clients.jsonl").open("a") as file:
        file.write(json.dumps({"round": 2, "client": 0}) + "\n")
    assert len(log.clients) == 3
    (path / "clients.jsonl").unlink()
    with pytest.raises(ValueError, match=r"clients\.jsonl: was deleted or cut since the log was read"):
        _ = late.clients
    assert len(log.clients) == 3


def test_a_log_is_copied_and_pickled_with_what_it_has_read(tmp_path: Path) -> None:
    log = reader.read_back(run_of(tmp_path))
    for other in (copy.copy(log), pickle.loads(pickle.dumps(log)), copy.deepcopy(log)):
        assert other.path == log.path and len(other.clients) == 3
    with pytest.raises(AttributeError, match="'RunLog' object has no attribute 'client'"):
        _ = log.client  # type: ignore[attr-defined]


def test_checksums_are_compared_unless_the_run_was_this_process_s(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    with (path / "clients.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=r"clients\.jsonl: damaged or changed after the run had ended"):
        reader.read_back(path)
    assert len(reader.read_back(path, checked=False).clients) == 4


def test_every_kind_of_event_is_documented() -> None:
    root = Path(__file__).parents[3]
    documented = (root / "docs" / "logs.md").read_text(encoding="utf-8")
    emitted = re.compile(r'(?:\bevent|_event)\(\s*"(\w+)"')
    files = [file for folder in ("fl_sim", "experiments") for file in (root / folder).rglob("*.py")]
    kinds = {kind for file in files for kind in emitted.findall(file.read_text(encoding="utf-8"))}
    kinds |= set(no_answer.EVENTS.values())
    assert len(kinds) > 20 and sorted(kind for kind in kinds if f"`{kind}`" not in documented) == []
