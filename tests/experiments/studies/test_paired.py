"""Differences seed by seed, by hand."""

import math

import pandas as pd
import pytest

from experiments.studies.paired import difference, lower_bound, markdown, signed, spread

TABLE = pd.DataFrame(
    [(arm, seed, x) for arm, xs in {"a": (0.5, 0.7, 0.6), "b": (0.4, 0.7, 0.3)}.items() for seed, x in enumerate(xs)],
    columns=["arm", "seed", "accuracy"],
)


def test_a_difference_is_that_of_pairs_with_student_s_interval() -> None:
    # a - b: .1, 0, .3; mean .4/3; s = .15275; t(.975, 2) = 4.3027: half = 4.3027 * .15275 / sqrt 3 = .37946
    gap = difference(TABLE, "a", "b", "accuracy")
    assert gap is not None and gap.mean == pytest.approx(0.4 / 3)
    assert (gap.low, gap.high) == pytest.approx((0.4 / 3 - 0.37946, 0.4 / 3 + 0.37946), abs=1e-4)
    assert (gap.wins, gap.seeds, gap.sign) == (2, 3, "undecided")
    assert signed(gap) == "+0.133 (-0.246 to +0.513)"
    other = difference(TABLE, "b", "a", "accuracy")
    assert other is not None and other.mean == -gap.mean and other.wins == 0


def test_an_interval_without_zero_decides() -> None:
    steady = TABLE.assign(accuracy=[0.5, 0.6, 0.7, 0.4, 0.49, 0.61])
    up, down = difference(steady, "a", "b", "accuracy"), difference(steady, "b", "a", "accuracy")
    assert up is not None and down is not None and (up.sign, down.sign) == ("higher", "lower")


def test_only_seeds_with_both_arms_count() -> None:
    gap = difference(TABLE.drop(index=[0, 1]), "a", "b", "accuracy")  # seed 2 is left
    assert gap is not None and gap.mean == pytest.approx(0.3) and gap.seeds == 1 and math.isnan(gap.low)
    assert signed(gap) == "+0.300" and gap.sign == "undecided"
    assert difference(TABLE[TABLE["arm"] == "a"], "a", "b", "accuracy") is None


def test_tables_and_spreads() -> None:
    assert spread(pd.Series([0.5, 0.7, 0.6])) == "0.600 (0.500 to 0.700)" and spread(pd.Series([math.nan])) == "-"
    assert markdown(["a", "b"], [[1, "x"]]) == ["| a | b |", "| --- | --- |", "| 1 | x |"]


def test_a_lower_bound_is_student_s_on_one_side() -> None:
    # as above: mean .4/3, s = .15275; t(.95, 2) = 2.9200: .13333 - 2.92 * .15275 / sqrt 3
    assert lower_bound(TABLE, "a", "b", "accuracy") == pytest.approx(0.13333 - 0.25752, abs=1e-4)
    assert lower_bound(TABLE.drop(index=[0, 1]), "a", "b", "accuracy") is None
