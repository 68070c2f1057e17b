"""The rows of all training parts: nothing held out, no unseen client, and a shared sample as often as it is owned."""

import numpy as np
import pytest

from fl_sim.errors import ConfigError
from fl_sim.population import training_rows as module
from fl_sim.population.partition import Listed, Partition, Resampled
from fl_sim.population.training_rows import training_rows


def by_hand(partition: Partition, clients: int) -> list[int]:
    """One client after another."""
    return sorted(int(i) for c in range(clients) for i in partition.client(c)[: partition.sizes(c)[0]])


def test_the_training_parts_of_a_listed_partition() -> None:
    """Clients own 0 3 6 ..., some nothing; client 3 holds out all that it has."""
    parts = [np.array(own, np.int64) for own in ([9, 2, 5], [], [7], [4, 1], [], [8, 0, 3, 6])]
    plain = Partition.of(parts, idle=(1, 4))
    assert training_rows(plain, 6).tolist() == list(range(10))
    some = Listed(plain.indices, plain.starts, np.array([1, 0, 0, 2, 0, 3]))
    assert training_rows(some, 6).tolist() == [2, 7, 8, 9] == by_hand(some, 6)
    assert training_rows(some, 3).tolist() == [2, 7, 9] and training_rows(some, 0).tolist() == []
    held = plain.hold_out(0.4, 3)
    for clients in range(7):
        assert training_rows(held, clients).tolist() == by_hand(held, clients)


def test_shared_samples_count_as_often_as_they_are_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 4)
    shared = Resampled(samples=12, clients=11, per_client=5, seed=1).hold_out(0.3, 0)
    rows = training_rows(shared, 9)
    assert rows.tolist() == by_hand(shared, 9) and len(rows) == 9 * shared.sizes(0)[0] and shared.sizes(0)[1]
    assert not set(rows) & set(shared.order[-shared.test :])  # type: ignore[index]


def test_too_many_shared_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^evaluate_train = True: .* own 300000000 .*; choose fewer clients"):
        training_rows(Resampled(samples=60000, clients=15_000_000, per_client=20, seed=1), 15_000_000)
