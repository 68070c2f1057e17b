"""Statistics over seeds, by hand and against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.analysis.seed_statistics import area, fairness, paired, seeds_needed


def test_paired_differences_are_taken_seed_by_seed() -> None:
    frame = pd.DataFrame(
        {"strategy": list("aaabbb"), "seed": [0, 1, 2, 2, 1, 0], "accuracy": [0.1, 0.5, 0.9, 0.93, 0.52, 0.11]}
    )
    [row] = paired(frame, "strategy").to_dict("records")
    gaps = [0.01, 0.02, 0.03]
    low, high = stats.t.interval(0.95, 2, loc=0.02, scale=stats.sem(gaps))
    assert row["strategy"] == "b" and row["mean"] == pytest.approx(0.02) and (row["n"], row["wins"]) == (3, 3)
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
    assert paired(frame, "strategy", baseline="b").iloc[0]["wins"] == 0
    with pytest.raises(ValueError, match="baseline = 'c': no row has it as strategy; there are a, b"):
        paired(frame, "strategy", baseline="c")
    with pytest.raises(ValueError, match="several rows of one seed"):
        paired(pd.concat([frame, frame]), "strategy")


def test_the_seeds_that_a_difference_needs() -> None:
    """Cohen's table for a paired t-test of effect .5 at power .8, two-sided .05: 34; of effect .8: 15."""
    assert seeds_needed(0.5, 1.0) == 34 and seeds_needed(-0.08, 0.1) == 15
    assert seeds_needed(0.01, 0.01, power=0.9) > seeds_needed(0.01, 0.01)
    with pytest.raises(ValueError, match="needs more than 5 seeds"):
        seeds_needed(0.01, 1.0, most=5)
    with pytest.raises(ValueError, match="must be other than 0"):
        seeds_needed(0.0, 1.0)


def test_the_area_is_the_mean_over_the_axis_and_fairness_that_over_clients() -> None:
    rounds = pd.DataFrame({"round": [0, 1, 2, 4], "accuracy": [0.0, 0.4, np.nan, 1.0]})
    assert area(rounds) == pytest.approx((0.2 * 1 + 0.7 * 3) / 4) and np.isnan(area(rounds.head(1)))
    found = fairness([0.2, 0.4, np.nan, 0.6])
    # pairs: |.2-.4| = .2, |.2-.6| = .4, |.4-.6| = .2, each twice: 1.6 / (2 * 9 * .4)
    assert found["gini"] == pytest.approx(1.6 / 7.2) and found["worst_10"] == 0.2 and found["clients"] == 3
    assert found["std"] == pytest.approx(np.std([0.2, 0.4, 0.6])) and fairness([1.0, 1.0])["gini"] == 0
    assert fairness(np.arange(20.0))["worst_10"] == 0.5 and fairness([])["clients"] == 0
