"""The repair of a partition: who gives samples to clients that are too small, and when that is reported."""

import warnings

import numpy as np
import pytest

from clients.partitions._repair import build


@pytest.mark.parametrize(
    "small, large, parts",
    [
        (
            [0] * 40,
            [20] * 60,
            ("40 of 1200 samples (3.3%)", "at least 1: 40 clients (40.0%) had fewer, and have 1 now"),
        ),
        ([3] * 5, [10] * 95, ()),  # 5 of 965 samples, 5 of 100 clients
        ([3] * 6, [10] * 94, ("6 of 958 samples (0.6%)", "at least 4: 6 clients (6.0%) had fewer, and have 4 now")),
    ],
)
def test_a_repair_warns_by_clients_as_well_as_by_samples(
    small: list[int], large: list[int], parts: tuple[str, ...]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(np.repeat(np.arange(100), small + large), 100, seed=0, min_samples=1 if len(small) > 6 else 4)
    assert [all(part in str(w.message) for part in parts) for w in caught] == ([True] if parts else [])


def test_a_repair_takes_from_the_largest() -> None:
    # Sizes 6, 3, 0, 0 and at least 2 per client: client 0 gives three (6 -> 5 -> 4 -> 3); then sizes are 3 and 3, and
    # the lower id gives the fourth.
    with pytest.warns(UserWarning, match="4 of 9 samples"):
        partition = build(np.array([0] * 6 + [1] * 3), 4, seed=0, min_samples=2)
    assert [len(partition.client(c)) for c in range(4)] == [2, 3, 2, 2] and (partition.moved, partition.filled) == (
        4,
        2,
    )
    assert set(partition.client(1)) == {6, 7, 8}
