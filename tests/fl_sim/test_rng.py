"""Random draws: published numbers, keys, distributions, and the same bits with and without vmap."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim import rng

GOLDEN = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
"""The first three numbers of SplitMix64 from state 0, published with its reference code (Vigna, prng.di.unimi.it)."""

any_key = st.integers(0, 2**64 - 1)


def test_keys_are_splitmix64() -> None:
    assert rng.keys(0, 3).tolist() == GOLDEN


def test_many_keys_are_few_and_more() -> None:
    many = rng.keys(2**64 - 5, 5000)
    assert (
        np.array_equal(many[:4096], rng.keys(2**64 - 5, 4096))
        and many.dtype == np.uint64
        and len(set(many.tolist())) == 5000
    )


def test_keys_are_the_keys_one_step_below() -> None:
    base = rng.key(7, "order", 3)
    assert rng.keys(base, 5).tolist() == [rng.key(7, "order", 3, i) for i in range(5)]


def test_every_part_of_a_key_counts() -> None:
    keys = [
        rng.key(s, p, r, c, t)
        for s in (-1, 0, 1)
        for p in ("a", "b")
        for r in range(4)
        for c in range(4)
        for t in range(4)
    ]
    assert len(set(keys)) == 3 * 2 * 64
    assert rng.key(0, "a", 1, 2) != rng.key(0, "a", 2, 1)


@given(any_key, st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_a_permutation_has_each_number_once(base: int, n: int) -> None:
    assert sorted(rng.permutation(base, n).tolist()) == list(range(n))


def test_permutations_are_uniform() -> None:
    drawn = [tuple(rng.permutation(rng.key(0, "test", i), 3).tolist()) for i in range(6000)]
    # 6000 draws of 6 equally likely ones: mean 1000, standard deviation sqrt(6000 * 1/6 * 5/6) = 28.9; 5 of these
    assert all(abs(drawn.count(p) - 1000) < 145 for p in set(drawn)) and len(set(drawn)) == 6


@given(any_key, st.integers(0, 60), st.data())
@settings(max_examples=40, deadline=None)
def test_a_sample_is_of_distinct_numbers_in_range(base: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    drawn = rng.sample(base, n, k)
    assert len(set(drawn)) == k and all(0 <= i < n for i in drawn)
    assert rng.sample(base, n, n)[:k] == drawn  # A larger sample starts with the smaller one.


def test_samples_are_uniform_and_need_no_list_of_all() -> None:
    drawn = [tuple(rng.sample(rng.key(0, "test", i), 4, 2)) for i in range(6000)]
    # 12 ordered pairs: mean 500, standard deviation sqrt(6000 * 1/12 * 11/12) = 21.4; 5 of these
    assert all(abs(drawn.count(p) - 500) < 107 for p in set(drawn)) and len(set(drawn)) == 12
    assert len(set(rng.sample(1, 10**12, 5))) == 5


@pytest.mark.parametrize("n, k", [(3, 4), (0, 1), (3, -1)])
def test_a_sample_larger_than_its_range_is_refused(n: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} of n = {n}"):
        rng.sample(0, n, k)


def test_generators_are_keyed() -> None:
    a, b, c = (rng.generator(base).normal(size=8) for base in (2**64 - 1, 2**64 - 1, 2**64 - 2))
    assert np.array_equal(a, b) and not np.isclose(a, c).any()


def test_legacy_is_the_old_seeded_stream() -> None:
    # the well-known first normal number of np.random.seed(0)
    assert rng.legacy(0).standard_normal() == pytest.approx(1.764052345967664, abs=1e-15)


@given(any_key)
@settings(max_examples=30, deadline=None)
def test_words_are_the_halves_of_a_key(base: int) -> None:
    low, high = (int(w) & 0xFFFFFFFF for w in rng.words(base))
    assert (high << 32) | low == base


def test_words_of_many_keys_keep_their_shape_and_order() -> None:
    many = rng.keys(3, 24).reshape(4, 6)
    assert rng.words(many).shape == (4, 6, 2)
    assert torch.equal(rng.words(many)[2, 3], rng.words(int(many[2, 3])))
    assert torch.equal(rng.words(many[:, ::2]), rng.words(many)[:, ::2])  # a view that is not contiguous


def lowbias32(x: int) -> int:
    """The published hash on unsigned Python integers (C. Wellons, "Prospecting for hash functions", 2018)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


@given(any_key)
@settings(max_examples=20, deadline=None)
def test_bits_are_the_published_hash_of_a_keyed_counter(base: int) -> None:
    low, high = base & 0xFFFFFFFF, base >> 32
    expected = [lowbias32((i + low) * (high | 1) & 0xFFFFFFFF) for i in range(5)]
    assert [int(b) & 0xFFFFFFFF for b in rng.bits(rng.words(base), 5)] == expected


def test_bits_depend_on_their_place_alone_and_not_on_vmap() -> None:
    pairs = rng.words(rng.keys(5, 3))
    together = torch.vmap(lambda pair: rng.bits(pair, 9))(pairs)
    assert torch.equal(together, torch.stack([rng.bits(pair, 9) for pair in pairs]))
    assert torch.equal(rng.bits(pairs[0], 4), together[0, :4])


def test_uniform_numbers() -> None:
    drawn = rng.uniform(rng.words(11), (100, 400), torch.float64)
    # Mean 1/2, variance 1/12: the mean of 40 000 numbers lies within 5 * sqrt(1/12/40000) = .0072 of 1/2, and the mean
    # of their squares within .0075 of 1/3.
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.0072 and abs(drawn.square().mean() - 1 / 3) < 0.0075
    assert rng.uniform(rng.words(11), ()).shape == ()


def test_keys_and_places_are_uncorrelated() -> None:
    drawn = torch.vmap(lambda pair: rng.uniform(pair, (8,), torch.float64))(rng.words(rng.keys(23, 4001)))
    # columns: 8 places of a key and the same 8 of the next key; 5 standard deviations 1 / sqrt(4000) of a correlation
    correlation = torch.corrcoef(torch.cat([drawn[:-1], drawn[1:]], 1).T)
    assert (correlation - torch.eye(16)).abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.3, 0.5, 0.999, 1.0])
def test_keep_masks(p: float) -> None:
    """Where p is a multiple of 1/256 an element takes one random byte, otherwise two."""
    mask = rng.keep_mask(rng.words(13), (200, 200), p)
    # standard deviation sqrt(p (1 - p) / 40000) <= .0025; 5 of these. Exact at 0 and 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0} and abs(mask.double().mean() - (1 - p)) <= (
        0.0125 if 0 < p < 1 else 0
    )
    same = rng.keep_mask(rng.words(13), (7, 11), p, torch.float64)
    assert same.dtype == torch.float64 and torch.equal(
        same.flatten(), mask.flatten()[:77].double()
    )  # Element i depends on the key and on i only.


@pytest.mark.parametrize("p", [0.25, 0.3])
def test_neighbours_in_a_mask_are_uncorrelated(p: float) -> None:
    """Elements from the same random word and from different words: 8 in a row, and the same 8 of the next key."""
    drawn = torch.stack([rng.keep_mask(rng.words(k), (8,), p) for k in rng.keys(29, 4001)]).double()
    correlation = torch.corrcoef(torch.cat([drawn[:-1], drawn[1:]], 1).T)
    # 120 pairs, standard deviation 1 / sqrt(4000) each; 5 of these
    assert (correlation - torch.eye(16)).abs().max() < 5 / 4000**0.5


def test_folded_keys_differ() -> None:
    pair = rng.words(17)
    folded = [pair, *(rng.fold(pair, n) for n in range(20))]
    assert len({tuple(p.tolist()) for p in folded}) == 21
    assert torch.equal(torch.stack(folded[1:]), rng.fold(pair, *range(20)))
    bits = torch.stack([rng.bits(p, 64) for p in folded])
    assert len(set(bits.flatten().tolist())) == 21 * 64  # 1344 of 2^32 values: a single collision has probability 2e-4


def test_folded_keys_may_first_be_needed_inside_nested_gradients() -> None:
    """MAML of second order with dropout: torch fails where a tensor of one call of ``grad`` is read in another."""
    pair, p, numbers = rng.words(17)[0], torch.ones(3), (101, 102)

    def inner(p: torch.Tensor) -> torch.Tensor:
        return (p * rng.fold(pair, *numbers).sum()).sum()

    def outer(p: torch.Tensor) -> torch.Tensor:
        return (torch.func.grad(inner)(p) * p).sum()

    first, again = torch.func.grad(outer)(p), torch.func.grad(outer)(p)
    assert torch.equal(first, again) and torch.equal(first, p * rng.fold(pair, *numbers).sum())


def drawn_globally() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def draw_and_fail(base: int, expected: tuple[float, float, float]) -> None:
    with rng.keyed_globals(base):
        assert drawn_globally() == expected
        raise RuntimeError("foreign code failed")


@pytest.mark.parametrize("_again", [False, True])  # with generators that were used before
def test_keyed_globals_key_foreign_code_and_give_back_the_generators(_again: bool) -> None:
    with rng.keyed_globals(2**64 - 1):
        first = drawn_globally()
        following = drawn_globally()
        with rng.keyed_globals(5):
            assert not set(drawn_globally()) & set(first)
        with pytest.raises(RuntimeError, match="foreign"):
            draw_and_fail(2**64 - 1, first)
        third = drawn_globally()
    with rng.keyed_globals(2**64 - 1):  # the same draws in a row, as if nothing had happened in between
        assert [drawn_globally() for _ in range(3)] == [first, following, third]


@pytest.mark.parametrize("p", [0.25, 0.3])
def test_keep_masks_are_the_same_under_vmap(p: float) -> None:
    pairs = rng.words(rng.keys(31, 5))
    together = torch.func.vmap(lambda pair: rng.keep_mask(pair, (3, 7), p))(pairs)
    assert torch.equal(together, torch.stack([rng.keep_mask(pair, (3, 7), p) for pair in pairs]))
