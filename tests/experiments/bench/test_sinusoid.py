"""The bench of a tiny round: the plain loop takes the same steps as the recipe, and both are shown."""

import pytest

from experiments.bench.sinusoid.__main__ import main, medians


def test_both_are_measured_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "4", "--turns", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["sinusoid-reptile", "plain PyTorch"]
    assert all(float(cell) > 0 for row in rows[2:] for cell in row.split("|")[2:4])


def test_medians_are_in_milliseconds() -> None:
    assert medians([(0.001, 0.002), (0.003, 0.002), (0.009, 0.004)]) == pytest.approx([3.0, 2.0])
