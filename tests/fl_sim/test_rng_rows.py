"""Draws for a part of a batch are the rows of the draws for the whole batch."""

import pytest
import torch

from fl_sim import rng


@pytest.mark.parametrize("first", [0, 1, 3, 6])
@pytest.mark.parametrize("rest", [(), (3,), (5, 2)])
def test_rows_of_a_part(first: int, rest: tuple[int, ...]) -> None:
    words, rows = rng.words(7), 9 - first
    wholes = [
        rng.uniform(words, (9, *rest)),
        rng.keep_mask(words, (9, *rest), 0.25),
        rng.keep_mask(words, (9, *rest), 0.3),
    ]
    with rng.rows_from(first):
        shape = (rows, *rest)
        parts = [rng.uniform(words, shape), rng.keep_mask(words, shape, 0.25), rng.keep_mask(words, shape, 0.3)]
    assert all(torch.equal(part, whole[first:]) for part, whole in zip(parts, wholes, strict=True))
    assert torch.equal(rng.uniform(words, (9, *rest)), wholes[0])
