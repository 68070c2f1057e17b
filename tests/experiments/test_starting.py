"""A command answers signals from its start; a process that only imports this project keeps its own handlers."""

import sys

import pytest

from experiments.starting import is_command


@pytest.mark.parametrize(
    "words, program, expected",
    [
        (["python", "-m", "experiments.run", "--rounds", "1"], "-m", True),
        (["python", "-u", "-m", "experiments"], "-m", True),
        (["python", "/venv/bin/fl-sim", "run"], "/venv/bin/fl-sim", True),
        (["python", "-m", "pytest"], "-m", False),
        (["python", "mine.py", "-m", "experiments.run"], "mine.py", False),
        (["python", "-m", "experiments.run"], "/x/experiments/run.py", False),
    ],
)
def test_signals_are_taken_over_only_in_a_command(
    words: list[str], program: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", [program])
    assert is_command() is expected
