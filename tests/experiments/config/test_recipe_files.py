"""Stored configs of older runs."""

from pathlib import Path

import pytest

from experiments.config import recipe_files


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that has two keys more than the one that wrote the stored config."""
    monkeypatch.setattr(recipe_files, "OLD_DEFAULTS", {"local.momentum": 0.5, "evaluate_every": 3})


@pytest.mark.usefixtures("older")
def test_a_key_that_a_stored_config_lacks_takes_the_value_that_repeats_its_run(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").touch()
    stored = tmp_path / recipe_files.CONFIG
    completed = recipe_files.completed({"seed": 1, "local": {"lr": 0.1}}, stored)
    assert completed == {"seed": 1, "local": {"lr": 0.1, "momentum": 0.5}, "evaluate_every": 3}


@pytest.mark.usefixtures("older")
def test_a_key_that_a_stored_config_has_stays(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").touch()
    settings = {"local": {"momentum": 0.9}, "evaluate_every": 1}
    assert recipe_files.completed(settings, tmp_path / recipe_files.CONFIG) == settings


@pytest.mark.usefixtures("older")
def test_a_recipe_takes_the_present_defaults(tmp_path: Path) -> None:
    settings = {"seed": 1}
    assert recipe_files.completed(settings, tmp_path / recipe_files.CONFIG) == settings  # no run's folder
    (tmp_path / "rounds.jsonl").touch()
    assert recipe_files.completed(settings, tmp_path / "mine.toml") == settings
