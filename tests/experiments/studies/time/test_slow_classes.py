"""The slow third has all samples of two classes; its durations are the slowest third of half-normal ones."""

import numpy as np
import pytest

from clients.profiles.halfnormal import halfnormal
from experiments.studies.time.slow_classes import RARE, slow_shards, slow_third
from fl_sim import Task, from_arrays
from fl_sim.population.devices import SECOND, Devices, Work


def task(shares: list[int]) -> Task:
    """Samples of ten classes, with these numbers of each."""
    y = np.repeat(np.arange(10), shares)
    return from_arrays(np.zeros((len(y), 2), np.float32), y, x_test=np.zeros((10, 2), np.float32), y_test=np.arange(10))


def test_only_the_last_third_has_the_rare_classes_and_all_clients_have_as_many_samples() -> None:
    made = slow_shards(task([60] * 10), 30, 3)
    label = np.repeat(np.arange(10), 60)
    labels = [label[rows] for rows in made]
    assert {len(x) for x in labels} == {20}
    assert not any(np.isin(x, RARE).any() for x in labels[:20])
    assert all(np.isin(x, RARE).any() for x in labels[20:])  # 12 shards for 10 clients
    assert sum(np.isin(x, RARE).sum() for x in labels) == 120
    assert sorted(np.concatenate(made).tolist()) == list(range(600))
    assert all(len(set(x.tolist())) <= 2 for x in labels)
    other = slow_shards(task([60] * 10), 30, 4)
    assert any(one.tolist() != two.tolist() for one, two in zip(made, other, strict=True))


def test_more_rare_shards_than_the_slow_third_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="shards of classes"):
        slow_shards(task([10] * 8 + [200, 200]), 30, 0)


def test_over_all_clients_durations_are_half_normal_and_the_last_third_is_slowest() -> None:
    ids = np.arange(30_000)
    one = np.ones(len(ids), np.int64)
    work = Work(ids, one, one, 0 * one, 0 * one)
    took = Devices(slow_third(30_000), per="launch").durations(work, 1)
    plain = Devices(halfnormal(), per="launch").durations(work, 1)
    seconds = took.training / SECOND
    assert np.quantile(seconds, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(plain.training / SECOND, [0.1, 0.5, 0.9]), rel=0.05
    )
    assert (
        seconds[:10_000].max() <= seconds[10_000:20_000].min()
        and seconds[10_000:20_000].max() <= seconds[20_000:].min()
    )
    assert (took.speed_class == ids // 10_000).all()
