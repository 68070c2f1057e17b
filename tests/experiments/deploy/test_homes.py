"""Homes of deployments: what a killed one left is removed by the next; others are left alone."""

import os
import tempfile
from pathlib import Path

import pytest

from experiments.deploy import homes


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_by_a_killed_one(temporary: Path, name: str) -> Path:
    """A home whose process has ended without removing it."""
    home = temporary / f"{homes.PREFIX}{name}"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "ca.key").write_text("secret")
    (home / homes.LOCK).touch()
    return home


def test_what_a_killed_deployment_left_is_removed(temporary: Path) -> None:
    dead = left_by_a_killed_one(temporary, "dead")
    with homes.new_home() as living:
        (living / "keys").mkdir()
        assert homes.remove_left() == [dead] and not dead.exists() and (living / "keys").is_dir()
    assert list(temporary.iterdir()) == []


def test_links_other_folders_and_those_without_a_lock_are_left_alone(temporary: Path) -> None:
    other = left_by_a_killed_one(temporary / "elsewhere", "x")
    (temporary / f"{homes.PREFIX}link").symlink_to(other)
    young = temporary / f"{homes.PREFIX}young"
    young.mkdir()
    assert homes.remove_left() == [] and other.is_dir() and young.is_dir()
    os.utime(young, (0, 0))
    assert homes.remove_left() == [young]
