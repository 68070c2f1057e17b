"""``--run-config``: what it reads, and what it refuses."""

from pathlib import Path

import pytest

from experiments.apps.run_config import read_run_config
from experiments.run import main
from fl_sim.errors import ConfigError

KNOWN = {"lr": 0.1, "a.b": 1, "name": "", "flag": False}


def test_pairs_are_read_as_flower_reads_them(tmp_path: Path) -> None:
    text = """lr=0.2 a.b=3 name="two words" flag=true"""
    expected = {"lr": 0.2, "a.b": 3, "name": "two words", "flag": True}
    assert read_run_config(text, KNOWN) == expected
    file = tmp_path / "own.toml"
    file.write_text("lr = 0.2\nname = 'two words'\nflag = true\n[a]\nb = 3\n")
    assert read_run_config(str(file), KNOWN) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lt=0.2", "did you mean lr?); it has lr, a.b, name, flag"),
        ("lr 0.2", "is no pair key=value"),
        ("lr=fast", "lr=fast cannot be read"),
        ("lr=1 lr=2", "lr is given twice"),
        ("lr=[1]", "is neither number, text"),
        ("none.toml", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="run_config") as error:
        read_run_config(text, KNOWN)
    assert reason in str(error.value)


def test_it_needs_an_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-config", "lr=1"]) == 2
    assert "give it with --app" in capsys.readouterr().err
