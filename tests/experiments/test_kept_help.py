"""Texts of ``run --help`` and ``list`` that are kept: shown again as they were, never half of one, never an old one."""

import io
import os
import sys
from pathlib import Path

import pytest

from experiments import kept_help
from experiments.kept_help import Tee, key, show_or_keep, words_of


@pytest.mark.parametrize(
    "command, words",
    [
        (["python", "-m", "experiments.run", "--help"], ("run", "--help")),
        (["python", "/venv/bin/fl-sim", "list", "--json"], ("list", "--json")),
        (["python", "-m", "experiments.list"], ("list",)),
        (["python", "-m", "pytest", "list"], ()),
        (["python", "mine.py"], ()),
    ],
)
def test_the_words_of_a_command(command: list[str], words: tuple[str, ...]) -> None:
    assert words_of(command) == words


def test_a_text_is_kept_and_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.list"])
    monkeypatch.setattr(sys, "stdout", first := io.StringIO())
    (tmp_path / "help").mkdir()
    (tmp_path / "help" / "list-0123.txt").write_text("old")
    show_or_keep()
    tee = sys.stdout
    assert isinstance(tee, Tee)
    print("all names")
    tee.keep()
    [file] = (tmp_path / "help").iterdir()  # the old one is gone
    assert first.getvalue() == "all names\n" == file.read_text()
    monkeypatch.setattr(sys, "stdout", second := io.StringIO())
    with pytest.raises(SystemExit) as end:
        show_or_keep()
    assert end.value.code == 0 and second.getvalue() == "all names\n"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.list", "--other"])
    show_or_keep()
    assert sys.stdout is second


class Closed(io.StringIO):
    """A pipe that is closed after the first line."""

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError
        return super().write(text)


def test_half_a_text_is_not_kept(tmp_path: Path) -> None:
    tee = Tee(Closed(), str(tmp_path / "list-1.txt"))
    tee.write("half")
    with pytest.raises(BrokenPipeError):
        tee.write("the rest")
    tee.keep()
    assert not list(tmp_path.iterdir())


def test_the_key_changes_with_the_sources_and_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_help, "ROOT", str(tmp_path))
    for package in kept_help.PACKAGES:
        (tmp_path / package / "deeper").mkdir(parents=True)
    file = tmp_path / "clients" / "deeper" / "a.py"
    file.write_text("1")
    before = key(("list",))
    assert before == key(("list",)) != key(("list", "--json"))
    os.utime(file, (1, 1))
    touched = key(("list",))
    monkeypatch.setenv("NO_COLOR", "1")
    assert len({before, touched, key(("list",))}) == 3
