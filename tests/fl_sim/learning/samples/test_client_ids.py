"""Ids of natural clients: any type that sorts, numbered by their sorted ids, with their names."""

import datetime

import numpy as np
import pytest
import torch

from fl_sim.learning.samples.client_ids import numbered
from fl_sim.learning.samples.sample_checks import BadSamples

DAYS = [datetime.date(2024, 5, 2), datetime.date(2024, 5, 1)]


@pytest.mark.parametrize(
    "ids, owner, names",
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (np.array(["b", "a", "b"], object)[:, None], [1, 0, 1], ["a", "b"]),
        ([b"b", b"a"], [1, 0], ["a", "b"]),
        (["b", np.str_("a")], [1, 0], ["a", "b"]),
        (torch.tensor([2.0, 1.0]).bfloat16(), [1, 0], [1, 2]),
        ([30, 7, 30], [1, 0, 1], [7, 30]),
        ([3.0, 1.0], [1, 0], [1, 3]),
        ([0.5, 0.25], [1, 0], ["0.25", "0.5"]),
        (np.array([2, 1], object), [1, 0], [1, 2]),
        ([True, False], [1, 0], [0, 1]),
        (DAYS, [1, 0], ["2024-05-01", "2024-05-02"]),
        (np.array(DAYS, "M8[D]"), [1, 0], ["2024-05-01", "2024-05-02"]),
    ],
)
def test_clients_are_numbered_in_the_order_of_their_ids(ids: object, owner: list[int], names: list[object]) -> None:
    found, known = numbered(ids)
    assert (found.tolist(), found.dtype, known.tolist()) == (owner, np.int64, names)


@pytest.mark.parametrize(
    "ids, message",
    [
        (["a", None, "b"], r"no id in row 1 \(None\), as in 1 of 3 rows; drop these rows, or give them an id"),
        ([1.0, 2.0, float("nan"), float("nan")], r"no id in row 2 \(nan\), as in 2 of 4 rows"),
        (["a", float("nan")], r"no id in row 1 \(nan\)"),
        (np.array(["2024-05-01", "NaT"], "M8[D]"), "no id in row 1"),
        (np.array([1, "s", 2], object), r"mixes kinds of ids: 1 in row 0 \(number\), 's' in row 1 \(str\)"),
        (np.array([1j, 2j], object), "ids of type complex, which do not sort"),
        ({1, 2}, "clients is a set; it must be an array"),
        (np.zeros((3, 2)), r"clients has the shape \(3, 2\)"),
    ],
)
def test_missing_ids_and_ids_that_do_not_sort_are_refused(ids: object, message: str) -> None:
    with pytest.raises(BadSamples, match=message):
        numbered(ids)
