"""The attacks on ends see what is wrong with an end; ``make attacks`` runs them."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from experiments.attacks.end_cases import ATTACKS, Attack
from experiments.attacks.ends import Ended, problem, reached
from experiments.attacks.kills import difference

KILLED = Attack("SIGTERM", "", 143, "stopped", "start", signal=signal.SIGTERM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that was stopped in round 8, with checkpoints of rounds 6 and 7."""
    (tmp_path / "checkpoints").mkdir()
    for number in (6, 7):
        (tmp_path / "checkpoints" / f"round-00000{number}-abc.safetensors").touch()
    (tmp_path / "summary.json").write_text(json.dumps({"status": "stopped", "rounds": 7, "seconds": 1.5}))
    for name in ("rounds", "clients", "events"):
        (tmp_path / f"{name}.jsonl").write_text('{"event":"start","time":1.0}\n')
    return tmp_path


def test_an_end_as_documented_has_no_problem(folder: Path) -> None:
    assert problem(KILLED, Ended(143, "interrupted", folder, [])) == ""


@pytest.mark.parametrize(
    "end, why",
    [
        ({"code": 0}, "exit code 0, not 143"),
        ({"code": None}, "does not end"),
        ({"err": "Traceback (most recent call last)"}, "a traceback"),
        ({"left": ["ray::IDLE"]}, "left: ray::IDLE"),
        ({"folder": None}, "no summary"),
    ],
)
def test_what_is_wrong_with_an_end_is_told(end: dict[str, Any], why: str, folder: Path) -> None:
    as_documented: dict[str, Any] = {"code": 143, "err": "", "folder": folder, "left": []}
    assert problem(KILLED, Ended(**{**as_documented, **end})) == why


def test_lost_rounds_and_missing_events_are_told(folder: Path) -> None:
    end = Ended(143, "", folder, [])
    (folder / "events.jsonl").write_text("")
    assert problem(KILLED, end) == "no event start"
    (folder / "summary.json").write_text('{"status": "stopped", "rounds": 9}')
    (folder / "events.jsonl").write_text('{"event":"start"}')
    assert problem(KILLED, end) == "2 finished rounds lost"
    (folder / "summary.json").write_text('{"status": "failed"}')
    assert problem(KILLED, end) == "status failed, not stopped"


def test_a_signal_waits_until_the_run_is_as_far(tmp_path: Path) -> None:
    assert not reached("round 1", tmp_path) and not reached("file building", tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "rounds.jsonl").write_text("{}\n{}\n")
    (tmp_path / "building").touch()
    assert reached("round 1", tmp_path) and reached("file building", tmp_path)


def test_a_difference_in_a_log_is_told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "clients.jsonl").write_text('{"event":"start","time":2.0}\n')
    (other / "events.jsonl").write_text('{"event":"stop","time":1.0}\n')
    assert difference(folder, other) == "events.jsonl differs"


def test_attacks_have_different_names() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
