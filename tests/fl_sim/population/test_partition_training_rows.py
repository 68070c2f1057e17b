"""The rows of all training parts: nothing held out, no unseen client, and a shared sample as often as it is owned."""

import numpy as np
import pytest

from fl_sim.population import partition as module
from fl_sim.population.partition import Listed, Partition, Resampled


def by_hand(partition: Partition, clients: int) -> list[int]:
    """One client after another."""
    return sorted(int(i) for c in range(clients) for i in partition.client(c)[: partition.sizes(c)[0]])


def test_the_training_parts_of_a_listed_partition() -> None:
    """Clients own 0 3 6 ..., some nothing; client 3 holds out all that it has."""
    parts = [np.array(own, np.int64) for own in ([9, 2, 5], [], [7], [4, 1], [], [8, 0, 3, 6])]
    plain = Partition.of(parts, idle=(1, 4))
    assert plain.training_rows(6).tolist() == list(range(10))
    some = Listed(plain.indices, plain.starts, np.array([1, 0, 0, 2, 0, 3]))
    assert some.training_rows(6).tolist() == [2, 7, 8, 9] == by_hand(some, 6)
    assert some.training_rows(3).tolist() == [2, 7, 9] and some.training_rows(0).tolist() == []
    held = plain.hold_out(0.4, 3)
    for clients in range(7):
        assert held.training_rows(clients).tolist() == by_hand(held, clients)


def test_shared_samples_count_as_often_as_they_are_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 4)
    shared = Resampled(samples=12, clients=11, per_client=5, seed=1).hold_out(0.3, 0)
    rows = shared.training_rows(9)
    assert rows.tolist() == by_hand(shared, 9) and len(rows) == 9 * shared.sizes(0)[0] and shared.sizes(0)[1]
    assert not set(rows) & set(shared.order[-shared.test :])  # type: ignore[index]


def test_what_is_trained_on_is_the_rows_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shared samples 1000 draws for each leave none out; held-out samples are in neither."""
    listed = Partition.of([np.array([5, 0, 3]), np.array([1, 2, 4])]).hold_out(0.3, 3)
    shared = Resampled(samples=12, clients=11, per_client=5, seed=1).hold_out(0.3, 0)
    for partition, clients in ((listed, 2), (listed, 1), (shared, 2), (shared, 9), (shared, 0)):
        assert partition.trained_on(clients).tolist() == sorted(set(by_hand(partition, clients)))
    monkeypatch.setattr(module, "MANY", 0)
    assert shared.trained_on(1).tolist() == sorted(shared.order[: -shared.test])  # type: ignore[index]
