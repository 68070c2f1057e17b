"""Curves over virtual time and bytes: a seed has the value that was evaluated last."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.analysis.curves import POINTS, curves
from fl_sim.logs.writer import RoundLog

CONFIG = '[strategy]\nname = "fedavg"\n'
SEEDS = [[(0.0, 0.1, 0), (2.0, 0.5, 3e6), (6.0, 0.9, 3e6)], [(0.0, 0.3, 0), (4.0, None, 1e6), (5.0, 0.7, 5e6)]]
"""Of two seeds: virtual time, accuracy and bytes of each round."""


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run a seed."""
    for seed, rows in enumerate(SEEDS):
        with RoundLog.create(tmp_path, f"run{seed}", f"seed = {seed}\n{CONFIG}") as log:
            for number, (time, accuracy, size) in enumerate(rows):
                row = {"round": number, "virtual_time": time, "accuracy": accuracy, "bytes_down": size, "bytes_up": 0}
                log.round(row)
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    "axis, end, points",
    [  # to the end of the seed that ends first
        ("virtual_time", 5.0, [(0.0, 0.1, 0.3), (1.9, 0.1, 0.3), (2.1, 0.5, 0.3), (4.9, 0.5, 0.3), (5.0, 0.5, 0.7)]),
        ("bytes", 6.0, [(0.0, 0.1, 0.3), (2.9, 0.1, 0.3), (3.1, 0.5, 0.3), (5.9, 0.5, 0.3), (6.0, 0.9, 0.7)]),
    ],
)
def test_a_curve_over_time_or_bytes_is_the_mean_of_what_was_evaluated_last(
    axis: str,
    end: float,
    points: list[tuple[float, float, float]],
    runs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: figures.append(self))
    curves(runs, tmp_path / "a.png", axis=axis)
    [line] = figures[0].axes[0].lines
    x, y = np.asarray(line.get_xydata()).T
    assert len(x) == POINTS and (x[0], x[-1]) == (0.0, end)
    for place, one, other in points:
        assert y[np.searchsorted(x, place, side="right") - 1] == pytest.approx((one + other) / 2)


def test_an_axis_that_is_none_or_that_no_run_has_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="axis = 'hours': must be one of round, seconds, virtual_time, bytes"):
        curves(runs, tmp_path / "a.png", axis="hours")
    with pytest.raises(ValueError, match="band = 'std': must be one of range, interval"):
        curves(runs, tmp_path / "a.png", band="std")
    with pytest.raises(ValueError, match="fedavg: not all of its 2 runs have accuracy and seconds"):
        curves(runs, tmp_path / "a.png", axis="seconds")
    with RoundLog.create(tmp_path, "run3", f"seed = 3\n{CONFIG}") as log:
        log.round({"round": 0, "accuracy": 0.5})
    with pytest.raises(ValueError, match="fedavg: not all of its 3 runs have accuracy and virtual_time"):
        curves([*runs, log.path], tmp_path / "a.png", axis="virtual_time")


@pytest.mark.parametrize("axis", ["round", "seconds", "bytes"])
def test_a_band_is_students_interval_and_the_legend_has_n(axis: str, tmp_path: Path) -> None:
    runs = []
    for seed, last in enumerate([0.5, 0.6, 0.7]):
        with RoundLog.create(tmp_path, f"run{seed}", f"seed = {seed}\n{CONFIG}") as log:
            for number, accuracy in enumerate([0.1, last]):
                log.round(
                    {"round": number, "accuracy": accuracy, "seconds": number, "bytes_up": number, "bytes_down": 0}
                )
        runs.append(log.path)
    panel = curves(runs, axis=axis, band="interval").axes[0]
    [band] = panel.collections
    heights = band.get_paths()[0].vertices[:, 1]
    # std = .1, half = t(.975, 2) .1 / sqrt 3 = 4.302653 * .057735
    assert (heights.min(), heights.max()) == pytest.approx((0.1, 0.6 + 0.2484138))
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["fedavg (n = 3)"]
    lowest_last = sorted({round(float(height), 7) for height in heights})[1]
    assert lowest_last == pytest.approx(0.6 - 0.2484138)
