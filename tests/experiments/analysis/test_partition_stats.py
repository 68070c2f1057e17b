"""Partition statistics, computed by hand for three clients and two labels."""

import numpy as np
import pytest

from clients.label_counts import counts
from experiments.analysis.partition_stats import frame, summary
from fl_sim.population.partition import Partition

LABELS = np.array([5, 5, 5, 7, 7, 7, 7, 7])
PARTITION = Partition.of([np.array([0, 1, 3, 4]), np.array([5, 6, 7]), np.array([2])], moved=1, filled=1)
"""Samples with label 5 and 7: (2, 2), (0, 3), (1, 0) at the three clients; (3, 5) in all."""


def test_counts() -> None:
    assert counts(PARTITION, LABELS).tolist() == [[2, 2], [0, 3], [1, 0]]
    assert counts(PARTITION, None).tolist() == [[4], [3], [1]]


def test_a_row_a_client() -> None:
    rows = frame(PARTITION.hold_out(0.5, 0), LABELS)
    assert rows["client"].tolist() == [0, 1, 2] and rows["samples"].tolist() == [4, 3, 1]
    assert rows["held_out"].tolist() == [2, 2, 0] and rows["labels"].tolist() == [
        2,
        1,
        1,
    ]  # round(1.5) = 2; one sample: none
    assert rows["largest_share"].tolist() == [0.5, 1, 1]
    assert rows["entropy"].tolist() == [1, 0, 0]  # bits of (1/2, 1/2) and of one label
    # TV to (3/8, 5/8): |1/2 - 3/8| = 1/8; |0 - 3/8| = 3/8; |1 - 3/8| = 5/8
    assert rows["distance"].tolist() == pytest.approx([1 / 8, 3 / 8, 5 / 8])


def test_the_summary() -> None:
    found = summary(PARTITION, LABELS)
    assert {k: found[k] for k in ("clients", "samples", "min", "median", "max", "moved", "filled")} == {
        **{"clients": 3, "samples": 8, "min": 1, "median": 3, "max": 4, "moved": 1, "filled": 1}
    }
    assert (
        found["distance"] == pytest.approx(3 / 8)
        and found["labels"] == pytest.approx(4 / 3)
        and found["entropy"] == pytest.approx(1 / 3)
    )


def test_a_client_without_samples_has_no_distribution_and_is_in_no_mean() -> None:
    # p = (1, 0) and (1/2, 1/2), q = (3/4, 1/4): TV 1/4 each
    empty = Partition.of([np.arange(2), np.arange(0), np.arange(2, 4)])
    rows = frame(empty, np.array([0, 0, 0, 1]))
    assert rows.loc[1, ["labels", "largest_share", "entropy", "distance"]].isna().all()
    found = summary(empty, np.array([0, 0, 0, 1]))
    assert (found["labels"], found["distance"], found["min"]) == (1.5, 0.25, 0)


def test_without_labels_there_are_sizes_alone() -> None:
    assert set(summary(PARTITION, None)) == {"clients", "samples", "min", "median", "max", "moved", "filled"}
    assert frame(PARTITION, None)[["labels", "largest_share", "entropy", "distance"]].isna().all(axis=None)
