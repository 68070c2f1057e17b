"""The text files of a run that has ended have checksums: no flip is read in silence."""

import json
from pathlib import Path

import pytest

from fl_sim.logs import checksums
from fl_sim.logs.reader import load
from fl_sim.logs.writer import RoundLog


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    with RoundLog.create(tmp_path, "run", "seed = 3\n") as log:
        log.round({"round": 0, "accuracy": 0.125})
        log.clients([{"round": 1, "client": 2, "loss": 0.5}])
        log.event("start")
        log.names({"classes": ["a"]})
        log.summary({"status": "completed", "accuracy": 0.125})
    return log.path


@pytest.mark.filterwarnings("error")  # of the checksum of the config there is a warning
@pytest.mark.parametrize("name", ["rounds.jsonl", "clients.jsonl", "summary.json", "names.json", "checksums.json"])
def test_every_flip_is_seen(name: str, ended: Path) -> None:
    good = (ended / name).read_bytes()
    assert load(ended).summary["accuracy"] == 0.125
    for bit in range(0, 8 * len(good), 37):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (ended / name).write_bytes(bad)
        with pytest.raises((ValueError, UserWarning), match="damaged"):
            load(ended)
    (ended / name).write_bytes(good)
    assert checksums.changed(ended) == []


def test_a_config_that_was_edited_is_told_and_read(ended: Path) -> None:
    (ended / "config.toml").write_text("seed = 4\n")
    with pytest.warns(UserWarning, match="not as the run wrote it"):
        assert load(ended).config == {"seed": 4}


def test_a_file_that_is_missing_is_seen_and_without_checksums_nothing_is(ended: Path) -> None:
    (ended / "clients.jsonl").unlink()
    with pytest.raises(ValueError, match=r"clients.jsonl: damaged or changed.*delete checksums.json"):
        load(ended)
    (ended / "checksums.json").unlink()
    assert len(load(ended).clients) == 0
    (ended / "checksums.json").write_text(json.dumps({"../../x": 1}))
    assert checksums.changed(ended) == ["../../x"]


def test_a_run_that_goes_on_has_none(ended: Path) -> None:
    with RoundLog.reopen(ended, {}, -1) as log:
        assert not (ended / "checksums.json").exists() and load(ended).summary == {}  # of its end before
        log.summary({})
        assert checksums.changed(ended) == [] and (ended / "checksums.json").exists()
        log.event("late")
        assert not (ended / "checksums.json").exists()
