"""Drift of the clients' updates: the numbers of the log, with Student's interval over seeds."""

from pathlib import Path

import pytest

from experiments.analysis.pictures.drift_picture import drift_picture
from fl_sim.logs.writer import RoundLog


def test_both_panels_have_the_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(2):
        with RoundLog.create(tmp_path, f"run{seed}", f'seed = {seed}\n[strategy]\nname = "fedavg"\n') as log:
            for number in (1, 2):
                log.round({"round": number, "drift": number + seed, "cosine": 0.5 - seed / 10})
    figure = drift_picture([tmp_path], tmp_path / "drift.svg")
    assert (tmp_path / "drift.svg").read_text().startswith("<?xml")
    drift, cosine = (axes.lines[0].get_ydata().tolist() for axes in figure.axes)
    assert drift == [1.5, 2.5] and cosine == [0.45, 0.45]
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(2.5 + 12.706205 * 0.5)  # std = 1 / sqrt 2, half = t(.975, 1) std / sqrt 2


def test_a_run_without_drift_is_refused_with_the_cure(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", '[strategy]\nname = "fedavg"\n') as log:
        log.round({"round": 0, "accuracy": 0.1})
    with pytest.raises(ValueError, match="has no drift; make the run with --log_drift"):
        drift_picture([log.path])
