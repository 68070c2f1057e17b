"""topk by hand: the largest magnitudes, of equal ones the first; a code that names other coordinates is refused."""

import numpy as np
import pytest
import torch

from fl_sim.wire.codec import Keys
from strategies.codecs._indices import packed
from strategies.codecs.topk import TopK, largest

KEYS = Keys(1, 2)


def test_the_largest_of_all_tensors_together_are_sent_and_the_rest_is_zero() -> None:
    """Of 6 coordinates half are sent: 3, -5 and 2."""
    update = {"a": torch.tensor([1.0, -5.0]), "b": torch.tensor([[2.0, 0.5], [3.0, -1.5]])}
    read, kept = TopK(0.5).transmit(update, {}, KEYS)
    assert read["a"].tolist() == [0.0, -5.0] and read["b"].tolist() == [[2.0, 0.0], [3.0, 0.0]] and kept == {}
    code, _ = TopK(0.5).encode(update, {}, KEYS)
    assert code["values"].tolist() == [-5.0, 2.0, 3.0]
    # a bitmap, because 6 bits are one byte: coordinates 1, 2 and 4
    assert code["indices"].tolist() == [0b01101000]


@pytest.mark.parametrize(
    ("values", "k", "chosen"),
    [([1.0, -1.0, 1.0, 1.0], 2, [0, 1]), ([0.0, 2.0, 1.0, -2.0, 1.0, 1.0], 4, [1, 2, 3, 4]), ([0.0, 0.0], 1, [0])],
)
def test_of_equal_magnitudes_the_first_are_sent(values: list[float], k: int, chosen: list[int]) -> None:
    assert largest(torch.tensor(values), k).tolist() == chosen


@pytest.mark.parametrize("k", [1, 500, 30_000, 99_999, 100_000])
def test_the_largest_of_many_are_those_of_a_sort(k: int) -> None:
    """Of 100 000: normal numbers, many equal ones, zeros, and large ones where the sample does not look."""
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    steep = x.clone()
    steep[1::5] *= 1e6
    for vector in (x, (x * 3).round(), torch.zeros_like(x), steep, x.double()):
        expected = (-vector.abs()).sort(stable=True).indices[:k].sort().values
        assert torch.equal(largest(vector, k), expected)


@pytest.mark.parametrize(("share", "k"), [(0.01, 1), (0.1, 10), (0.104, 10), (0.106, 11), (1.0, 100)])
def test_how_many_are_sent(share: float, k: int) -> None:
    assert TopK(share).count({"w": torch.zeros(100)}) == k


def test_a_factor_of_a_schedule_is_one_of_so_many() -> None:
    assert TopK(0.5).scaled(16.0) == TopK(1 / 16) and TopK().scaled(1.0) == TopK(1.0)


@pytest.mark.parametrize(
    "indices",
    [[0, 0, 0], [255, 255, 255], [0b10000000, 0, 0]],
    ids=["none", "all", "one"],
)
def test_a_bitmap_of_another_number_of_coordinates_is_refused(indices: list[int]) -> None:
    """20 coordinates, 8 sent, a bitmap of 3 bytes."""
    like, codec = {"w": torch.zeros(20)}, TopK(0.4)
    bad = {"values": torch.ones(8), "indices": torch.tensor(indices, dtype=torch.uint8)}
    assert codec.problem(bad, like) == "code: no 8 ascending indices below 20"
    with pytest.raises(ValueError, match="no ascending indices in range"):
        codec.decode(bad, like, 1)


def test_indices_that_are_not_ascending_or_too_large_are_refused() -> None:
    """3 of 1000 by Elias and Fano, 8 lower bits: 5, 5, 7 (twice the same), then 5, 7, 1001."""
    like, codec = {"w": torch.zeros(1000)}, TopK(0.003)
    for indices in ([5, 5, 7], [5, 7, 1001]):
        lower = "".join(f"{i & 255:08b}"[::-1] for i in indices)
        unary = ["0"] * 6
        for number, i in enumerate(indices):
            unary[(i >> 8) + number] = "1"
        bits = "".join(unary).ljust(8, "0") + lower
        code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
        bad = {"values": torch.ones(3), "indices": torch.tensor(code, dtype=torch.uint8)}
        assert codec.problem(bad, like) == "code: no 3 ascending indices below 1000"
    good = {"values": torch.ones(3), "indices": torch.from_numpy(packed(np.array([5, 7, 999]), 1000))}
    assert codec.problem(good, like) == ""
    assert codec.decode(good, like, 1)["w"].nonzero().flatten().tolist() == [5, 7, 999]
