"""A config that names a Flower app: a run folder from a stranger runs no code, a user's own recipe and run do."""

from pathlib import Path

import pytest

from experiments.apps.stored_apps import signature
from experiments.config.command_line import parse
from fl_sim.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a key."""
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def config(folder: Path, app: str, rate: float, signed: str, name: str = "config.toml") -> str:
    """The file of a run's config."""
    lines = f'app = "{app}"\napp_signature = "{signed}"\n\n[app_config]\nlr = {rate}\n'
    (folder / name).write_text(lines if signed else lines.replace('app_signature = ""\n', ""))
    return str(folder / name)


def test_the_config_of_ones_own_run_names_the_app_again(tmp_path: Path) -> None:
    call = parse([config(tmp_path, "/mine", 0.1, signature("/mine", {"lr": 0.1}))])
    assert (call.app, call.app_config) == ("/mine", {"lr": 0.1}) and not {"app", "app_signature"} & set(call.explicit)


@pytest.mark.parametrize("signed", ["", "another", "of another app", "of other settings", "of another key"])
def test_the_config_of_a_stranger_runs_no_app(signed: str, tmp_path: Path, home: Path) -> None:
    hmac = {
        "of another app": signature("/other", {"lr": 0.1}),
        "of other settings": signature("/mine", {"lr": 0.2}),
        "of another key": signature("/mine", {"lr": 0.1}),
    }.get(signed, signed)
    if signed == "of another key":
        (home / "key").write_bytes(bytes(32))
    file = config(tmp_path, "/mine", 0.1, hmac)
    with pytest.raises(ConfigError, match="^app = '/mine': .*config.toml names this app, .* --app /mine$"):
        parse([file, "--dry_run"])
    assert parse([file, "--app", "/mine"]).app_config == {"lr": 0.1}


def test_a_recipe_of_the_user_may_name_an_app(tmp_path: Path, home: Path) -> None:
    assert parse([config(tmp_path, "/mine", 0.1, "", "mine.toml")]).app == "/mine" and not home.exists()


def test_where_others_can_read_the_key_the_reason_is_that(tmp_path: Path, home: Path) -> None:
    file = config(tmp_path, "/mine", 0.1, signature("/mine", {"lr": 0.1}))
    (home / "key").chmod(0o644)
    with pytest.raises(ConfigError, match="app = '/mine': .*chmod 600.*--app /mine"):
        parse([file])
