"""The help of ``run`` and ``partition``, shown before the command is imported: which words ask for it, and its end."""

import sys

import pytest

from experiments.early_help import show_if_asked, words_of


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


@pytest.mark.parametrize(
    "words, code, said, silent",
    [
        (["partition", "--partition", "shards", "--help"], 0, "--partition.shards_per_client", "--local.lr"),
        (["run", "--partition", "shrads", "-h"], 2, "did you mean 'shards'?", "Traceback"),
    ],
)
def test_help_ends_the_command(
    words: list[str],
    code: int,
    said: str,
    silent: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "")
    monkeypatch.setattr(sys, "orig_argv", ["python", "/venv/bin/fl-sim", *words])
    with pytest.raises(SystemExit) as end:
        show_if_asked()
    text = "".join(capsys.readouterr())
    assert end.value.code == code and said in text and silent not in text
    assert max(map(len, text.splitlines())) <= 100 or code


def test_other_words_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "quickstart"], ["sweep", "--help"], []):
        monkeypatch.setattr(sys, "orig_argv", ["python", "/venv/bin/fl-sim", *words])
        show_if_asked()  # does not end the process
        assert capsys.readouterr() == ("", "")
