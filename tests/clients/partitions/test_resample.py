"""``resample``: draws with replacement, computed when a client takes part."""

import pickle

import numpy as np
import pytest
import torch

from clients.partitions.resample import resample
from fl_sim.learning.task import Task
from fl_sim.population.partition import Listed, Partition, Resampled


def even(n: int) -> Task:
    """n samples, equally many of each of ten classes."""
    labels = np.arange(n) % 10
    return Task("toy", {"x": torch.zeros(n, 1), "y": torch.from_numpy(labels)}, {}, 10, labels=labels)


def test_a_sample_is_as_likely_as_the_next() -> None:
    partition = resample(even(10), 5000, 0)
    counts = np.bincount(np.concatenate([partition.client(c) for c in range(5000)]), minlength=10)
    # 100 000 draws of 10: standard deviation sqrt(100 000 * .1 * .9) = 95; 4 of these
    assert counts.sum() == 100_000 and np.abs(counts - 10_000).max() < 380


def test_draws_are_with_replacement_and_the_same_at_every_call() -> None:
    partition = resample(even(30), 100, 3, samples_per_client=30)
    mine = [partition.client(c) for c in range(100)]
    # of 30 draws of 30, 30 (1 - 1/30)^30 = 10.8 samples are missing
    assert 17 < np.mean([len(set(x.tolist())) for x in mine]) < 21 and not np.array_equal(mine[0], mine[1])
    assert all(np.array_equal(x, partition.client(c)) for c, x in enumerate(mine))


def test_a_client_takes_no_memory_until_its_samples_are_drawn() -> None:
    partition = resample(even(50), 10**12, 0)
    assert partition.client(10**12 - 1).shape == (20,) and partition.sizes(10**11) == (20, 0)
    assert partition.size_counts().tolist() == [[20, 0, 10**12]] and partition.size_counts(7).tolist() == [[20, 0, 7]]
    assert len(pickle.dumps(partition)) < 300
    held = partition.hold_out(0.2, 0)
    assert held.order is not None and held.order.nbytes == 8 * 50  # 8 bytes per sample, none per client


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_held_out_samples_train_nobody(share: float) -> None:
    partition = resample(even(40), 300, 1, samples_per_client=10).hold_out(share, 1)
    held = max(1, min(9, round(share * 10)))
    assert {partition.sizes(c) for c in range(300)} == {(10 - held, held)}
    parts = [partition.client(c) for c in range(300)]
    trained, tested = (
        set(np.concatenate([x[s] for x in parts]).tolist()) for s in (slice(0, 10 - held), slice(10 - held, 10))
    )
    assert not trained & tested and trained | tested <= set(range(40)) and len(tested) <= max(1, round(share * 40))


def test_what_cannot_be_held_out_is_not() -> None:
    lone = resample(even(40), 3, 0, samples_per_client=1)
    assert lone.hold_out(0.5, 0) is lone and lone.hold_out(0.0, 0) is lone
    few = resample(even(1), 3, 0)
    assert few.hold_out(0.5, 0) is few


def test_clients_of_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"partition\.samples_per_client = 0: must be at least 1"):
        resample(even(30), 3, 0, samples_per_client=0)


def test_it_is_a_partition_without_arrays_of_clients() -> None:
    partition = resample(even(30), 3, 0)
    assert isinstance(partition, Resampled) and isinstance(partition, Partition) and not isinstance(partition, Listed)
