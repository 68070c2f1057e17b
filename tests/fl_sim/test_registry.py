"""A user's module is found in the current folder, which comes last: no file there replaces a package of this
project.
"""

import os
import sys
from pathlib import Path

import pytest

from fl_sim.registry import HOME, find, search_last


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``sys.path`` of a console script whose project is installed in editable mode: HOME is not on it."""
    names = [folder for folder in sys.path if folder not in ("", HOME, os.getcwd())]
    monkeypatch.setattr(sys, "path", names)
    return names


def test_the_current_folder_and_named_folders_are_searched_last(
    path: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, name in ((here, "mine_here"), (there, "mine_there")):
        folder.mkdir()
        (folder / f"{name}.py").write_text(f"class Mine: name = {name!r}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(here)
    monkeypatch.setenv("FL_SIM_PATH", str(there))
    before = list(path)
    assert find("strategies", "strategy", "mine_here:Mine").name == "mine_here"
    assert find("strategies", "strategy", "mine_there:Mine").name == "mine_there"
    assert sys.path == [*before, HOME, str(here), str(there)]


def test_a_folder_that_is_searched_already_keeps_its_place(path: list[str]) -> None:
    search_last(path[-1], "/x", "")
    assert sys.path == [*path[:-2], HOME, "/x"] and HOME not in path[:-2]
    search_last("/x", HOME)
    assert sys.path[-2:] == [HOME, "/x"]
