"""Curves of a page: which points they keep, and that these are the numbers of the log."""

import numpy as np

from experiments.report.curve_points import curves_of, metrics_of, places, unpacked
from experiments.report.found_runs import folders, read_runs


def test_a_curve_with_few_points_keeps_every_number() -> None:
    assert places(np.array([np.nan, 1.0, np.inf, 2.0]), 10).tolist() == [1, 3]


def test_a_long_curve_keeps_its_ends_and_its_peaks() -> None:
    values = np.sin(np.arange(5000) / 300)
    values[1234], values[4321], values[77] = 9.0, -9.0, np.nan
    kept = places(values, 100)
    assert len(kept) <= 100 and (np.diff(kept) > 0).all()
    assert {0, 1234, 4321, 4999} <= set(kept.tolist()) and 77 not in kept
    assert len(kept) > 60  # peaks are not all: the rest of the curve is there too


def test_curves_are_the_numbers_of_the_log(make_run) -> None:
    [found] = read_runs(folders([make_run("a", [0.1, None, None, 0.4, None, None, 0.7])])).found
    curves = curves_of(found.log, metrics_of([found.log]), 1000, 1000)
    x, y = unpacked(curves["metrics"]["accuracy"], curves["axes"]["round"])
    assert x.tolist() == [0, 3, 6] and np.allclose(y, [0.1, 0.4, 0.7])
    x, y = unpacked(curves["metrics"]["loss"], curves["axes"]["seconds"])
    assert np.allclose(x, [0.5, 3, 5.5, 8, 10.5, 13, 15.5]) and np.allclose(y, 2 - np.arange(7) / 10)
    x, _ = unpacked(curves["metrics"]["accuracy"], curves["axes"]["bytes"])
    assert x.tolist() == [0, 4.5, 9] and "virtual_time" not in curves["axes"]


def test_metrics_are_what_changes_with_those_of_the_model_first(make_run) -> None:
    [found] = read_runs(folders([make_run("a")])).found
    assert metrics_of([found.log]) == ["accuracy", "loss", "seconds"]  # the bytes and evaluations are always the same
