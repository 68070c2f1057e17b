"""The bench of sums over processes: what it counts, and the model beside it."""

import pytest

from experiments.bench.collectives.__main__ import Link, main, model, theory


def test_bytes_and_seconds_by_the_alpha_beta_model() -> None:
    """By hand for 4 ranks and 100 numbers, n = 400 bytes: the ring takes 2 * 3 steps of 100 bytes."""
    link = Link(alpha=1.0, beta=0.01)
    assert [theory(name, 4, 100) for name in ("ring", "server", "whole pieces")] == [2400, 2400, 4800]
    assert model("ring", 4, 100, link) == pytest.approx(6 * (1 + 100 * 0.01))
    assert model("server", 4, 100, link) == pytest.approx(6 * (1 + 400 * 0.01))
    assert model("whole pieces", 4, 100, link) == pytest.approx(3 * (1 + 400 * 0.01))
    assert model("ring", 4, 0, link) == 0


def test_the_table_has_the_bytes_of_theory_and_the_library_s_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--processes", "2", "--sizes", "3", "--turns", "1"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:8]]
    assert [row[2] for row in rows] == ["library", "ring", "ordered", "server", "whole pieces", "literal loop"]
    assert all(row[5] == row[6] for row in rows[1:]) and all(float(row[7]) < 1e-6 for row in rows)
    assert main(["--processes", "1"]) == 2
