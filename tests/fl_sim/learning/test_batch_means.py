"""Means over a batch's real samples, weighted by their labels that count; numbers are computed by hand."""

import pytest
import torch

from fl_sim import Batch, rng
from fl_sim.learning.batch_means import mean, with_weights

VALUES, MASK = torch.tensor([1.0, 4.0, 7.0]), torch.tensor([True, True, False])
WEIGHTS = torch.tensor([3, 1, 5])


def test_a_mean_is_over_real_samples_and_their_labels() -> None:
    assert mean(VALUES, None, None) == 4.0
    assert mean(VALUES, MASK, None) == 2.5
    assert mean(VALUES, None, WEIGHTS) == pytest.approx((3 + 4 + 35) / 9)
    assert mean(VALUES, MASK, WEIGHTS) == pytest.approx((3 + 4) / 4)
    assert mean(torch.tensor([1.0, torch.nan, 7.0]), MASK, torch.tensor([3, 0, 5])) == 1.0
    assert mean(VALUES, ~MASK & MASK, None) == mean(VALUES, MASK, torch.tensor([0, 0, 5])) == 0.0
    assert mean(VALUES > 2, None, None) == pytest.approx(2 / 3)


@pytest.mark.parametrize("values", [torch.tensor(1.0), torch.ones(3, 1), torch.ones(2)])
def test_a_padded_batch_takes_one_number_a_sample_only(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="for a padded batch of 3 samples; it must give \\(3,\\), one number a sample"):
        mean(values, MASK, None)


def test_a_batch_weighs_as_many_labels_as_count() -> None:
    samples = {"x": torch.zeros(3, 2), "y": torch.tensor([[0, -100], [1, 1], [0, 1]])}
    counted = with_weights(samples, -100)
    assert Batch(counted, rng.words(0)).weight == 5 and Batch(counted, rng.words(0), MASK).weight == 3
    assert with_weights(samples, None) is samples
    assert Batch(samples, rng.words(0)).weight == 3 and Batch(samples, rng.words(0), MASK).weight == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_half_precision_have_a_mean_of_full_precision(dtype: torch.dtype) -> None:
    """2 of 5 is 0.4, which half precision rounds; 100 * 1000 is above its largest number, 65504."""
    hits = torch.tensor([1, 0, 1, 0, 0, 1], dtype=dtype)
    mask = torch.tensor([True] * 5 + [False])
    assert mean(hits, mask, None, torch.float64).item() == mean(hits[:5], None, None, torch.float64).item() == 0.4
    many = torch.full((100,), 1000.0, dtype=dtype)
    assert mean(many, torch.ones(100, dtype=torch.bool), None).item() == 1000.0
