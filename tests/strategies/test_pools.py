"""Pools by hand on two clients and three weights; that grouping does not matter is part of the contract tests."""

import itertools

import pytest
import torch

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.pools.absmax import AbsMax
from strategies.pools.max import Max
from strategies.pools.mean import Mean

A = {"w": torch.tensor([1.0, -5.0, 2.0])}
B = {"w": torch.tensor([0.0, 3.0, -4.0])}


def pooled(pool: Pool, replies: list[Tree], weights: list[float]) -> Tree:
    like = replies[0]
    return pool.finish(
        pool.add(pool.start(like), tree.stack(replies), torch.tensor(weights, dtype=torch.float64)), like
    )


@pytest.mark.parametrize(
    "pool, weights, expected",
    [
        (Mean(), [1.0, 1.0], [0.5, -1.0, -1.0]),
        (Mean(), [3.0, 1.0], [0.75, -3.0, 0.5]),  # (3 * 1 + 0) / 4, (-15 + 3) / 4, (6 - 4) / 4
        (Max(), [1.0, 1.0], [1.0, 3.0, 2.0]),
        (Max(), [1.0, 1000.0], [1.0, 3.0, 2.0]),
        (AbsMax(), [1.0, 1.0], [1.0, -5.0, -4.0]),
        (AbsMax(), [1000.0, 1.0], [1.0, -5.0, -4.0]),
    ],
)
def test_two_clients_and_three_weights(pool: Pool, weights: list[float], expected: list[float]) -> None:
    assert pooled(pool, [A, B], weights)["w"].tolist() == expected
    assert pooled(pool, [B, A], weights[::-1])["w"].tolist() == expected


@pytest.mark.parametrize("pool", [Mean(), Max(), AbsMax()])
@pytest.mark.parametrize("weight", [1.0, 7.0])
def test_a_pool_of_one_is_that_one(pool: Pool, weight: float) -> None:
    one = {**A, "scalar": torch.tensor(-2.0), "counter": torch.tensor(3)}
    for name, value in pooled(pool, [one], [weight]).items():
        torch.testing.assert_close(value, one[name], rtol=0, atol=1e-6)


def test_the_largest_magnitude_keeps_its_sign_and_of_a_tie_the_positive_one_wins_in_any_order() -> None:
    values = [{"w": torch.tensor([2.0, -1.0])}, {"w": torch.tensor([-2.0, 0.5])}, {"w": torch.tensor([1.0, -3.0])}]
    for order in itertools.permutations(values):
        assert pooled(AbsMax(), list(order), [1.0, 1.0, 1.0])["w"].tolist() == [2.0, -3.0]
        pool = AbsMax()
        one_by_one = pool.start(order[0])
        for value in order:
            one_by_one = pool.merge(one_by_one, pool.add(pool.start(value), tree.stack([value]), torch.ones(1)))
        assert pool.finish(one_by_one, order[0])["w"].tolist() == [2.0, -3.0]


@pytest.mark.parametrize("pool", [Mean(), Max(), AbsMax()])
def test_replies_are_left_alone(pool: Pool) -> None:
    """A partial grows in place, but never in the memory of a reply, nor of the second partial of a merge."""
    one, two, three = ({"w": torch.tensor(values)} for values in ([1.0, -5.0], [3.0, -1.0], [2.0, 7.0]))
    first = pool.add(pool.start(one), tree.stack([one]), torch.ones(1, dtype=torch.float64))
    views = [{k: v[None] for k, v in reply.items()} for reply in (two, three)]
    partial = pool.start(one)
    for view in views:
        partial = pool.add(partial, view, torch.ones(1, dtype=torch.float64))
    before = tree.digest(partial)
    pool.merge(pool.merge(pool.start(one), partial), first)
    assert tree.digest(partial) == before
    assert (two["w"].tolist(), three["w"].tolist()) == ([3.0, -1.0], [2.0, 7.0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_the_largest_counter_keeps_its_type(dtype: torch.dtype) -> None:
    for pool in (Max(), AbsMax()):
        done = pooled(pool, [{"n": torch.tensor(n, dtype=dtype)} for n in (0, 3, 1)], [1.0, 1.0, 1.0])["n"]
        assert done.dtype == dtype and int(done) == (1 if dtype == torch.bool else 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_the_mean_of_integer_buffers_is_rounded_and_keeps_its_type(dtype: torch.dtype) -> None:
    # BatchNorm's counters after 2, 3 and 3 batches, weights 1, 1, 2: 11 / 4 = 2.75 -> 3; booleans 1, 0, 0: 1 / 4 -> 0
    counts = [1, 0, 0] if dtype == torch.bool else [2, 3, 3]
    replies = [{"counter": torch.tensor(n, dtype=dtype), "w": torch.ones(2)} for n in counts]
    mean = pooled(Mean(), replies, [1.0, 1.0, 2.0])
    assert mean["counter"].dtype == dtype and int(mean["counter"]) == (0 if dtype == torch.bool else 3)


def test_large_counters_are_not_rounded_through_float32() -> None:
    big = 2**24 + 1  # the first whole number that float32 cannot represent
    assert int(pooled(Mean(), [{"n": torch.tensor(big)}] * 3, [1.0, 2.0, 4.0])["n"]) == big


@pytest.mark.parametrize("pool", [Mean(), Max(), AbsMax()])
def test_scalars_and_matrices_alike(pool: Pool) -> None:
    """A parameter without axes (a learnt temperature) is pooled as any other."""
    replies = [{"t": torch.tensor(float(c)), "m": torch.full((2, 3), float(c))} for c in (1, 2, 3)]
    done = pooled(pool, replies, [1.0, 1.0, 1.0])
    assert done["t"].shape == () and done["m"].shape == (2, 3) and torch.equal(done["m"], done["t"].expand(2, 3))


def test_the_mean_leaves_out_what_no_client_sent() -> None:
    """A gradient has no buffers: ``finish`` gives what the replies had."""
    model = {"w": torch.zeros(3), "running_mean": torch.ones(3)}
    pool = Mean()
    partial = pool.add(pool.start(A), tree.stack([A, B]), torch.ones(2, dtype=torch.float64))
    assert set(pool.finish(partial, model)) == {"w"}
