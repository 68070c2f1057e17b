"""What each pool promises, on random replies: grouping, order, translation, ties, limits, weights."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim import registry, tree
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.base.reductions import PACKAGE, make_pool
from strategies.pools.geometric_median import GeometricMedian
from strategies.pools.lp import Lp
from strategies.pools.softmax import Softmax
from strategies.pools.trimmed import Trimmed

NAMES = list(registry.names(PACKAGE, "pool"))
EXACT = {"max", "min", "absmax", "median", "trimmed", "geometric-median"}
"""Pools whose result has the same bits for every grouping and order."""
COMMUTE = {"mean", "max", "min", "softmax", "median", "trimmed", "geometric-median"}
IGNORE = {"max", "min", "absmax", "median", "trimmed", "l2norm"}
GLOBAL = {"w": torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64)}


def made(name: str, **numbers: float) -> Pool:
    return make_pool(name, {"p": 4.0, "T": 0.5, "share": 0.2, **numbers}, GLOBAL)


def of(values: list[Any], dtype: torch.dtype = torch.float64) -> list[Tree]:
    return [{"w": torch.tensor(v, dtype=dtype)} for v in values]


def part(pool: Pool, replies: list[Tree], weights: list[float]) -> Tree:
    return pool.add(pool.start(replies[0]), tree.stack(replies), torch.tensor(weights, dtype=torch.float64))


def pooled(pool: Pool, replies: list[Tree], weights: list[float] | None = None) -> torch.Tensor:
    return pool.finish(part(pool, replies, weights or [1.0] * len(replies)), replies[0])["w"]


numbers = st.floats(-100, 100, allow_nan=False, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0)
clients = st.lists(
    st.tuples(st.lists(numbers, min_size=3, max_size=3), st.sampled_from([0.5, 1.0, 3.0, 200.0])),
    min_size=3,
    max_size=6,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(found=clients, cut=st.integers(1, 2))
def test_neither_grouping_nor_order_matters(name: str, found: list[tuple[list[float], float]], cut: int) -> None:
    pool, replies, weights = made(name), of([v for v, _ in found]), [w for _, w in found]
    whole = pooled(pool, replies, weights)
    grouped = pool.merge(part(pool, replies[cut:], weights[cut:]), part(pool, replies[:cut], weights[:cut]))
    backwards = pooled(pool, replies[::-1], weights[::-1])
    tolerance = 0.0 if name in EXACT else 1e-9
    for other in (pool.finish(grouped, replies[0])["w"], backwards):
        torch.testing.assert_close(other, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_translation(name: str) -> None:
    """The pool of x + a is that of x plus a, for the pools of which weights and deltas are the same algorithm."""
    draw = torch.Generator().manual_seed(0)
    replies = [{"w": torch.randn(3, generator=draw, dtype=torch.float64)} for _ in range(5)]
    moved, weights = [tree.add(reply, GLOBAL) for reply in replies], [1.0, 2.0, 3.0, 4.0, 5.0]
    off = (pooled(made(name), moved, weights) - GLOBAL["w"] - pooled(made(name), replies, weights)).abs().max()
    assert (float(off) < 1e-12) == (name in COMMUTE) and made(name).ignores_weights == (name in IGNORE)


@pytest.mark.parametrize("name", NAMES)
def test_empty_one_and_equal_replies(name: str) -> None:
    """Nothing gives no leaves, and K equal replies that one (the norm: K^(1/2) times its magnitudes)."""
    pool, like = made(name), of([[1.0, -2.0, 0.0]])
    assert pool.finish(pool.start(like[0]), like[0]) == {}
    for count in (1, 4):
        value = like[0]["w"].abs() * count**0.5 if name == "l2norm" else like[0]["w"]
        torch.testing.assert_close(pooled(pool, like * count), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integer_leaves_keep_their_dtype(name: str, dtype: torch.dtype) -> None:
    """Of three equal counters it is that one, which a lossy sum would miss; the norm of (0, 3, 4) is 5."""
    big = {torch.int64: 2**40 + 1, torch.int32: 2**25 + 1}.get(dtype, 1)
    values = [0, 3, 4] if name == "l2norm" and dtype != torch.bool else [big] * 3
    value = pooled(made(name), of(values, dtype))
    assert value.dtype == dtype and int(value) == (5 if values[0] == 0 else big)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_weights_does_not_matter(name: str, scale: float, dtype: torch.dtype) -> None:
    replies = of([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0], [2.0, -1.0, 4.0]], dtype)
    reference = pooled(made(name), replies, [1.0, 2.0, 4.0])
    close = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(
        pooled(made(name), replies, [scale, 2 * scale, 4 * scale]), reference, rtol=close, atol=0
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - IGNORE - {"lp", "l2"}))
def test_a_huge_weight_is_as_if_alone(name: str) -> None:
    replies = of([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
    torch.testing.assert_close(pooled(made(name), replies, [1e30, 1e-30]), replies[0]["w"], rtol=0, atol=1e-12)


def test_powers_that_float32_cannot_hold() -> None:
    """.01^32 = 1e-64 is 0 in float32; of (.01, .01, .02) at p = 32: .02 ((2^-32 + 2^-32 + 1) / 3)^(1/32)."""
    assert torch.tensor(0.01) ** 32 == 0
    value = pooled(Lp(32), of([[0.01], [0.01], [0.02]], torch.float32))
    assert float(value) == pytest.approx(0.02 * ((1 + 2**-31) / 3) ** (1 / 32), rel=1e-6)
    assert float(pooled(Lp(32), of([[1e-30], [1e-30]], torch.float32))) == pytest.approx(1e-30, rel=1e-6)
    assert float(pooled(Lp(32), of([[1e30], [1e-30]], torch.float32))) == pytest.approx(
        1e30 * 0.5 ** (1 / 32), rel=1e-6
    )


@pytest.mark.parametrize("p", [1.0, 2.0, 4.5])
def test_the_power_mean_against_its_formula(p: float) -> None:
    replies, weights = of([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0], [2.0, -1.0, 0.0]]), [1.0, 2.0, 5.0]
    x, n = tree.stack(replies)["w"], torch.tensor(weights, dtype=torch.float64)[:, None]
    mean = (n * x.sign() * x.abs() ** p).sum(0) / 8
    expected = mean.sign() * mean.abs() ** (1 / p)
    torch.testing.assert_close(pooled(Lp(p), replies, weights), expected, rtol=0, atol=1e-12)
    other = {1.0: "mean", 2.0: "l2"}.get(p)
    if other is not None:
        torch.testing.assert_close(pooled(made(other), replies, weights), expected, rtol=0, atol=1e-12)


def test_opposite_ties_of_the_power_mean_in_any_order() -> None:
    """Unequal weights: the heavier sign; equal ones: the next magnitude, .5 (1/3)^(1/p), which p = 8 still sees."""
    for order in itertools.permutations(range(3)):
        values, weights = [[1.0], [-1.0], [0.5]], [2.0, 3.0, 1.0]
        heavier = pooled(Lp(32), of([values[c] for c in order]), [weights[c] for c in order])
        assert float(heavier) == pytest.approx(-((1 / 6) ** (1 / 32)), rel=1e-6)
        assert float(pooled(Lp(8), of([values[c] for c in order]))) == pytest.approx(0.5 * 3 ** (-1 / 8), rel=1e-9)
        tie, uneven = of([[1.0], [1.0], [-1.0]]), [0.1, 0.2, 0.3]  # .1 + .2 - .3 is 5.6e-17 in float64
        assert float(pooled(Lp(32), [tie[c] for c in order], [uneven[c] for c in order])) == 0.0
        assert float(pooled(Lp(1000), of([values[c] for c in order]))) == 0.0  # .5^1000 is below rounding


def test_softmax_between_maximum_and_mean() -> None:
    replies, weights = of([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]), [3.0, 1.0]
    for T, name in ((1e-9, "max"), (1e9, "mean")):
        expected = pooled(made(name), replies, weights)
        torch.testing.assert_close(pooled(made("softmax", T=T), replies, weights), expected, rtol=0, atol=1e-7)
    x, t = tree.stack(replies)["w"], 0.5 * GLOBAL["w"].std(correction=0)
    e = torch.tensor(weights, dtype=torch.float64)[:, None] * torch.exp(x / t)
    expected, pool = (e * x).sum(0) / e.sum(0), made("softmax")
    torch.testing.assert_close(pooled(pool, replies, weights), expected, rtol=0, atol=1e-12)
    for c in (0, 1):  # parts whose largest elements differ
        a, b = (part(pool, [replies[k]], [weights[k]]) for k in (c, 1 - c))
        torch.testing.assert_close(pool.finish(pool.merge(a, b), replies[0])["w"], expected, rtol=0, atol=1e-12)
    assert Softmax(1.0, {"b": torch.zeros(4), "s": torch.tensor(3.0)}).units == {"b": 1e-8, "s": 1e-8}


@pytest.mark.parametrize("share, expected", [(0.0, 3.6), (0.1, 3.0), (0.2, 3.0), (0.21, 3.0), (0.49, 3.0), (0.05, 3.0)])
def test_trimmed_and_median_by_hand(share: float, expected: float) -> None:
    """Of 1, 2, 3, 4, 8: the mean 18/5, without one at each end 3, without two 3."""
    assert float(pooled(Trimmed(share), of([[8.0], [1.0], [3.0], [2.0], [4.0]]))) == pytest.approx(expected)
    assert float(pooled(made("median"), of([[8.0], [1.0], [3.0], [2.0]]))) == 2.5
    assert [Trimmed(0.1).cut(k) for k in (1, 2, 3, 10, 11, 30)] == [0, 0, 1, 1, 2, 3]


def test_the_geometric_median_is_where_the_pulls_cancel() -> None:
    """Of a triangle it is the point that sees each pair of corners at 120 degrees; a client of more weight than the
    others together is the median itself, up to the smoothing."""
    corners = of([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    median = pooled(GeometricMedian(), corners)
    pulls = [c["w"] - median for c in corners]
    assert float(torch.stack([p / p.norm() for p in pulls]).sum(0).norm()) < 1e-6
    heavy = pooled(GeometricMedian(), corners, [5.0, 1.0, 1.0])
    assert float(heavy.norm()) < 1e-5
    far = pooled(GeometricMedian(), [*corners, {"w": torch.tensor([1e6, 1e6], dtype=torch.float64)}])
    assert float(far.norm()) < 2


@pytest.mark.parametrize(
    "make", [lambda: Lp(0.5), lambda: Lp(float("inf")), lambda: Softmax(0.0), lambda: Trimmed(0.5)]
)
def test_numbers_out_of_range(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
