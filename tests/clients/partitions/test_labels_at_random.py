"""The partition ``labels``, compared with NIID-Bench's algorithm."""

import numpy as np
import pytest
import torch

from clients.partitions.labels import drawn_labels, labels
from fl_sim import rng
from fl_sim.learning.task import Task
from fl_sim.population.partition import Listed


def even(n: int, classes: int = 10) -> Task:
    """n samples, equally many of each class."""
    y = np.arange(n) % classes
    return Task("toy", {"x": torch.zeros(n, 1), "y": torch.from_numpy(y)}, {}, classes, labels=y)


def made(task: Task, clients: int, seed: int, each: int = 2) -> Listed:
    partition = labels(task, clients, seed, each)
    assert isinstance(partition, Listed)
    return partition


def published(clients: int, k: int, each: int, draw: np.random.Generator) -> np.ndarray:
    """The labels of each party by the loop of NIID-Bench: i mod K, then draws that are repeated until they are new."""
    found = []
    for i in range(clients):
        mine = [i % k]
        while len(mine) < each:
            label = int(draw.integers(k))
            if label not in mine:
                mine.append(label)
        found.append(mine)
    return np.array(found)


def spread(theirs: np.ndarray) -> float:
    """The coefficient of variation of sizes where each label's samples are split equally among its owners."""
    owners = np.bincount(theirs.reshape(-1))
    sizes = (1 / owners[theirs]).sum(1)
    return float(sizes.std() / sizes.mean())


def test_sizes_vary_as_in_the_published_algorithm() -> None:
    ours = [spread(drawn_labels(10, 10, 2, seed)) for seed in range(300)]
    draw = rng.generator(0)
    theirs = [spread(published(10, 10, 2, draw)) for _ in range(300)]
    # standard deviation .047 over draws, so .0027 of a mean over 300; 4 of these, and of a difference
    assert np.mean(ours) == pytest.approx(0.29, abs=0.011)
    assert np.mean(ours) == pytest.approx(float(np.mean(theirs)), abs=0.0155)
    sizes = np.diff(made(even(5000), 10, 0).starts)
    assert sizes.std() / sizes.mean() == pytest.approx(ours[0], abs=0.003)


def test_each_client_has_its_own_label_and_others_uniformly_and_some_labels_one_client() -> None:
    draws = np.stack([drawn_labels(10, 10, 3, seed) for seed in range(300)])
    assert (draws[:, :, 0] == np.arange(10)).all()
    assert all(len(set(mine)) == 3 for mine in draws.reshape(-1, 3).tolist())
    others = np.bincount((draws[:, :, 1:] - np.arange(10)[:, None]).reshape(-1) % 10, minlength=10)
    # 6000 draws over nine labels: 667 each, standard deviation 24; 4 of these
    assert others[0] == 0 and np.abs(others[1:] - 6000 / 9).max() < 97
    # nine others, each without a given label with probability 8/9: (8/9)^9 = .346 of labels have one client at m = 2
    pairs = np.stack([drawn_labels(10, 10, 2, seed) for seed in range(300)])
    sole = np.mean([(np.bincount(mine.reshape(-1), minlength=10) == 1).mean() for mine in pairs])
    assert sole == pytest.approx((8 / 9) ** 9, abs=0.03)


def test_the_samples_of_a_label_are_split_equally_among_its_owners() -> None:
    task, partition = even(5000), made(even(5000), 25, 3, 3)
    assert task.labels is not None
    held = np.stack([np.bincount(task.labels[partition.client(c)], minlength=10) for c in range(25)])
    theirs = drawn_labels(25, 10, 3, 3)
    assert all(set(np.flatnonzero(row)) == set(mine) for row, mine in zip(held, theirs.tolist(), strict=True))
    for column in held.T:
        owned = column[column > 0]
        assert owned.sum() == 500 and owned.max() - owned.min() <= 1
    assert len(set((held > 0).sum(0))) > 2  # not dealt evenly


def test_a_label_without_a_client_is_refused_by_name_with_the_cures() -> None:
    cures = "choose at least 10 clients, more labels per client, or --partition labels-equal"
    why = r"partition\.labels_per_client = 1: with partition\.seed = 4 none of 3 clients has class 3 \(10 samples\) of"
    with pytest.raises(ValueError, match=f"{why} task 'toy'; {cures}"):
        labels(even(100), 3, 4, 1)
    for each in (0, 11):
        with pytest.raises(ValueError, match=rf"labels_per_client = {each}: task 'toy' has 10 labels; choose 1\.\.10"):
            labels(even(100), 20, 0, each)


def test_many_clients_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn_labels(57, 5, 2, 1)
    monkeypatch.setattr("clients.partitions.labels.AT_ONCE", 20)
    assert np.array_equal(drawn_labels(57, 5, 2, 1), whole)
