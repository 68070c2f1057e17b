"""Shards of a batch, and the fixed tree in which their tensors are summed."""

import itertools

import pytest
import torch
from torch import Tensor

from fl_sim.learning.sharded.shard_tree import Node, bounds, joined, subtrees, summed


@pytest.mark.parametrize(("samples", "shards"), [(0, 3), (1, 4), (4, 4), (10, 4), (7, 7), (100, 8)])
def test_shards_are_contiguous_and_of_nearly_equal_size(samples: int, shards: int) -> None:
    edges = bounds(samples, shards)
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    assert (edges[0], edges[-1], len(sizes)) == (0, samples, shards)
    assert sizes == sorted(sizes, reverse=True) and max(sizes) - min(sizes) <= 1


def test_the_sum_follows_the_tree() -> None:
    """By hand for five shards: ((0 + 1) + 2) + (3 + 4); 1e16 swallows a 1 that is added to it alone."""
    numbers = [1.0, 1.0, 1e16, -1e16, 1.0]
    total = summed(Node(0, 5), lambda s: torch.tensor([numbers[s]], dtype=torch.float64))
    assert total is not None and total.item() == ((1.0 + 1.0) + 1e16) + (-1e16 + 1.0) != sum(numbers)


def test_a_shard_without_samples_adds_nothing() -> None:
    assert summed(Node(0, 4), lambda s: None) is None
    lonely = summed(Node(0, 4), lambda s: torch.tensor([-0.0]) if s == 2 else None)
    assert lonely is not None and str(lonely.item()) == "-0.0"


@pytest.mark.parametrize("shards", [1, 2, 4, 5, 8])
def test_any_owners_of_contiguous_shards_get_the_same_bits(shards: int) -> None:
    """Every way to cut the shards into contiguous parts: each owner sums its subtrees, and the rest is joined."""
    draws = torch.randn(shards, 50, generator=torch.Generator().manual_seed(0))

    def leaf(shard: int) -> Tensor:
        return draws[shard].clone()

    expected = summed(Node(0, shards), leaf)
    assert expected is not None
    for count in range(1, min(shards, 4) + 1):
        for cuts in itertools.combinations(range(1, shards), count - 1):
            edges = [0, *cuts, shards]
            owned = [node for a, b in itertools.pairwise(edges) for node in subtrees(a, b, shards)]
            sums = {node: summed(node, leaf) for node in owned}
            total = joined(Node(0, shards), sums.__getitem__, owned)
            assert total is not None and torch.equal(total, expected)


def test_an_equal_power_of_two_sends_one_tensor_each() -> None:
    """So that four shards take the ring's bytes on one, two and four processes."""
    assert [len(subtrees(r * 4 // p, (r + 1) * 4 // p, 4)) for p in (1, 2, 4) for r in range(p)] == [1] * 7
    assert len(subtrees(0, 3, 4)) == 2 and subtrees(2, 2, 4) == []
