"""Indices by Elias and Fano, or as a bitmap: there and back, with the bytes of the formula."""

import numpy as np
import pytest

from strategies.codecs._indices import num_bytes, packed, unpacked

SIZES = [(0, 1), (1, 1), (0, 5), (5, 5), (1, 7), (3, 8), (1, 1000), (10, 1000), (999, 1000), (1, 65537), (61, 6177)]


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_there_and_back(k: int, n: int) -> None:
    draw = np.random.Generator(np.random.Philox(key=n))
    sets = [np.sort(draw.choice(n, k, replace=False)) for _ in range(3)]
    for indices in [np.arange(k), np.arange(n - k, n), *sets]:
        code = packed(indices, n)
        assert code.dtype == np.uint8 and len(code) == num_bytes(k, n)
        found = unpacked(code, k, n)
        assert found is not None and found.tolist() == indices.tolist()


def test_a_code_by_hand() -> None:
    """2 of 64, l = 5 lower bits. 3 = 0|00011 and 40 = 1|01000: unary 1, 01; then lower bits, the lowest first."""
    assert packed(np.array([3, 40]), 64).tolist() == [0b10100000, 0b11000000, 0b10000000]


@pytest.mark.parametrize(("k", "n", "size"), [(100, 10_000, 107), (5000, 10_000, 1250), (0, 10_000, 0), (1, 8, 1)])
def test_the_smaller_of_the_two_codes(k: int, n: int, size: int) -> None:
    """100 of 10 000: 6 lower bits each, 75 bytes, and 100 + 156 bits in unary, 32; half of them: the bitmap."""
    assert num_bytes(k, n) == size
