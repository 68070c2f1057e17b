"""Partitions: each client's samples and its held-out part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim.population.partition import Listed, Partition, Resampled, median

PARTS = [np.array([4, 1]), np.array([0]), np.array([], dtype=int), np.array([2, 3, 5])]


def test_a_partition_keeps_its_parts() -> None:
    partition = Partition.of(PARTS, moved=2)
    assert len(partition) == 4 and partition.moved == 2
    assert [partition.client(c).tolist() for c in range(4)] == [[4, 1], [0], [], [2, 3, 5]]
    assert [partition.sizes(c) for c in range(4)] == [(2, 0), (1, 0), (0, 0), (3, 0)]
    assert partition.indices.dtype == partition.starts.dtype == partition.held_out.dtype == np.int64
    assert len(Partition.of([])) == 0


def test_holding_out_nothing_changes_nothing() -> None:
    partition = Partition.of(PARTS)
    assert partition.hold_out(0, seed=1) is partition


def test_unseen_clients_may_hold_out_another_share() -> None:
    partition = Partition.of([np.arange(10), np.arange(10, 20), np.arange(20, 30)])
    plain, held = partition.hold_out(0.2, 3), partition.hold_out_unseen(0.2, 1, 0.8, 3)
    assert [held.sizes(c) for c in range(3)] == [(8, 2), (8, 2), (2, 8)]
    assert np.array_equal(held.indices, plain.indices)  # one order, cut elsewhere
    alone = partition.hold_out_unseen(0.0, 1, 0.8, 3)
    assert [alone.sizes(c) for c in range(3)] == [(10, 0), (10, 0), (2, 8)]
    assert alone.client(0).tolist() == list(range(10)) and np.array_equal(alone.client(2), plain.client(2))
    assert [partition.hold_out_unseen(0.2, 1, 0.0, 3).sizes(c) for c in range(3)] == [(8, 2), (8, 2), (10, 0)]
    with pytest.raises(ValueError, match=r"partition.unseen_held_out = 0.8: .*all clients hold out one share"):
        Resampled(30, 3, 10, 0).hold_out_unseen(0.0, 1, 0.8, 3)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_held_out_parts_are_rounded_shares_and_never_all(sizes: list[int], share: float, seed: int) -> None:
    ends = np.cumsum(sizes)
    partition = Partition.of(np.split(np.arange(ends[-1]), ends[:-1]), moved=3)
    held = partition.hold_out(share, seed)
    for c, n in enumerate(sizes):
        assert sorted(held.client(c)) == sorted(partition.client(c))
        train, test = held.sizes(c)
        assert train + test == n
        assert test == 0 if n < 2 else train >= 1 and test >= 1
        if n >= 2 and 1 <= round(share * n) <= n - 1:
            assert test == round(share * n)
    assert held.moved == 3


def test_held_out_parts_are_keyed_by_seed_and_client() -> None:
    partition = Partition.of([np.arange(50), np.arange(50, 100)])
    a, b, c = (partition.hold_out(0.2, seed) for seed in (0, 0, 1))
    assert np.array_equal(a.indices, b.indices) and not np.array_equal(a.indices, c.indices)
    assert a.held_out.tolist() == [10, 10] and not np.array_equal(a.client(0), a.client(1) - 50)
    assert set(a.client(0)[-10:]) != set(range(40, 50))  # They are random, not the last ones (probability 1 in 10^10).


@pytest.mark.parametrize("share, expected", [(0.01, 1), (0.2, 1), (0.5, 2), (0.99, 3)])
def test_a_client_of_four_keeps_one_and_gives_one(share: float, expected: int) -> None:
    # round(.04) = 0 -> 1; round(.8) = 1; round(2.0) = 2; round(3.96) = 4 -> 3
    assert Partition.of([np.arange(4)]).hold_out(share, 0).held_out.tolist() == [expected]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_sizes_are_counted_without_asking_each_client(sizes: list[int], share: float, first: int) -> None:
    ends = np.cumsum(sizes)
    partition = Partition.of(np.split(np.arange(ends[-1]), ends[:-1])).hold_out(share, 0)
    assert isinstance(partition, Listed) and partition.exclusive
    for some in (None, first):
        expected = [partition.sizes(c) for c in range(len(sizes))][:some]
        assert {(a, b): n for a, b, n in partition.size_counts(some).tolist()} == {
            x: expected.count(x) for x in expected
        }


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=6))
def test_the_median_of_counted_values(counted: list[tuple[int, int]]) -> None:
    values, counts = np.array(counted).T
    assert median(values, counts) == np.median(np.repeat(values, counts))


@pytest.mark.parametrize("held", [False, True])
def test_several_clients_are_each_of_them(held: bool) -> None:
    listed: Partition = Partition.of(PARTS)
    drawn: Partition = Resampled(50, 1000, 7, seed=3)
    for partition, clients in ((listed, [3, 0, 2]), (drawn, [999, 0, 5, 0])):
        chosen = partition.hold_out(0.3, 1) if held else partition
        for mine, c in zip(chosen.several(clients), clients, strict=True):
            assert np.array_equal(mine, chosen.client(c)) and mine.dtype == np.int64
