"""The heat map of a sweep: each trial at its place, and none hidden behind another."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.pictures.sweep_picture import sweep_picture

TABLE = pd.DataFrame(
    {
        "trial": list("abcde"),
        "strategy.mu": [0.1, 0.0, 0.1, 0.0, 1.0],
        "alpha": [1, 1, 10, 10, 1],
        "state": ["completed"] * 5,
        "val_accuracy": [0.4, 0.3, 0.2, 0.1, np.nan],
    }
)


def test_each_trial_is_at_its_place(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "table.csv", index=False)
    axes = sweep_picture(tmp_path, tmp_path / "mu.svg").axes[0]
    assert (tmp_path / "mu.svg").exists() and (axes.get_xlabel(), axes.get_ylabel()) == ("strategy.mu", "alpha")
    cells = np.asarray(axes.images[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(cells[:, :2], [[0.3, 0.4], [0.1, 0.2]])
    assert [text.get_text() for text in axes.get_xticklabels()][:2] == ["0.0", "0.1"]
    assert sweep_picture(TABLE, x="alpha").axes[0].get_ylabel() == "strategy.mu"


def test_what_a_picture_cannot_show_is_refused(tmp_path: Path) -> None:
    more = pd.concat([TABLE.assign(seed_of=1), TABLE.assign(seed_of=2)])[["trial", "strategy.mu", "alpha", "seed_of"]]
    more = more.assign(state="completed", val_accuracy=0.5)
    for table, options, error in [
        (tmp_path, {}, "has no table.csv; name the folder of a sweep"),
        (TABLE, {"value": "f1"}, "value = 'f1': the sweep has no such number; it has trial"),
        (TABLE, {"x": "beta"}, "x = 'beta', .*must be two settings of the sweep, which varies strategy.mu, alpha"),
        (TABLE.drop(columns="alpha"), {}, "y = None: must be two settings"),
        (more, {}, "several trials have strategy.mu = 0.1, alpha = 1: seed_of varies too"),
    ]:
        with pytest.raises(ValueError, match=error):
            sweep_picture(table, **options)
