"""What Flower and Ray log goes into files of the run's folder; errors, and what others say, are on the terminal."""

import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_sim.logs.libraries.library_lines import FILES, collected
from fl_sim.logs.writer import RoundLog

FLOWER, RAY = (logging.getLogger(name) for name in FILES)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the terminal's handlers of Flower and Ray show."""
    shown, before = io.StringIO(), [(logger, logger.handlers[:], logger.level) for logger in (FLOWER, RAY)]
    for logger, _, _ in before:
        logger.handlers[:] = [logging.StreamHandler(shown)]
        logger.setLevel(logging.INFO)
    yield shown
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def test_lines_are_in_the_folder_and_errors_on_the_terminal_too(tmp_path: Path, terminal: io.StringIO) -> None:
    with collected():
        FLOWER.warning("before the folder is there")
    with RoundLog.create(tmp_path, "run", "") as log:
        FLOWER.info("aggregate_fit: received 10 results")
        FLOWER.error("broken")
        logging.getLogger("ray.worker").warning("a worker of Ray")
        with collected():
            FLOWER.info("within a hook")
        warnings.warn_explicit("telemetry", FutureWarning, "/lib/site-packages/ray/worker.py", 1)
    FLOWER.info("after the run")
    assert terminal.getvalue().splitlines() == ["broken", "after the run"]
    flower, ray = ((log.path / name).read_text() for name in FILES.values())
    said = [line.partition(" flwr: ")[2] for line in flower.splitlines()]
    assert said == ["before the folder is there", "aggregate_fit: received 10 results", "broken", "within a hook"]
    assert " WARNING ray.worker: a worker of Ray\n" in ray and "FutureWarning: telemetry" in ray


def test_a_run_in_which_they_say_nothing_has_no_such_file(tmp_path: Path, terminal: io.StringIO) -> None:
    before = warnings.showwarning
    with RoundLog.create(tmp_path, "run", "") as log, pytest.warns(UserWarning, match="our own"):
        warnings.warn("our own", stacklevel=1)
    assert not {path.name for path in log.path.iterdir()} & set(FILES.values())
    assert warnings.showwarning is before and FLOWER.handlers[0].filters == []


def test_of_two_folders_the_last_one_gets_the_lines(tmp_path: Path, terminal: io.StringIO) -> None:
    with RoundLog.create(tmp_path, "a", "") as first:
        with RoundLog.create(tmp_path, "b", "") as second:
            FLOWER.info("inner")
        FLOWER.info("outer")
    texts = [(log.path / "flower.log").read_text() for log in (first, second)]
    assert "outer" in texts[0] and "inner" not in texts[0] and "inner" in texts[1] and "outer" not in texts[1]


def test_a_file_that_cannot_be_written_ends_nothing(
    tmp_path: Path, terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flower.log").mkdir()
    with collected(tmp_path):
        FLOWER.info("lost")
        FLOWER.error("seen")
    assert terminal.getvalue() == "seen\n" and capsys.readouterr().err == ""
