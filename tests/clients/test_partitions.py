"""Requirements on every partition with any parameters, then the properties of each partition."""

import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim import registry
from fl_sim.learning.task import Task
from fl_sim.population.partition import Listed, Partition

PARTITIONS = registry.names("clients.partitions", "partition")
WITH_ALPHA = [name for name, function in PARTITIONS.items() if "alpha" in registry.parameters(function)]
OF_LABELS = ["dirichlet", "dirichlet-client", "labels", "labels-equal", "shards"]

every_partition = pytest.mark.parametrize("name", PARTITIONS)
SHARING = ["resample"]
"""Partitions whose clients share samples."""
dividing_partition = pytest.mark.parametrize("name", [name for name in PARTITIONS if name not in SHARING])


def task_of(labels: np.ndarray | None, n: int = 0, owners: np.ndarray | None = None) -> Task:
    n = n if labels is None else len(labels)
    train = {"x": torch.zeros(n, 1), "y": torch.zeros(n) if labels is None else torch.from_numpy(labels)}
    return Task("toy", train, {}, 1 if labels is None else int(labels.max()) + 1, labels=labels, clients=owners)


def even(n: int, classes: int = 10) -> Task:
    """n samples, equally many of each class, sorted by class; each sample is a natural client."""
    return task_of(np.sort(np.arange(n) % classes), owners=np.arange(n))


def table(partition: Partition, labels: np.ndarray) -> np.ndarray:
    """(C, K) samples of each label."""
    return np.stack(
        [np.bincount(labels[partition.client(c)], minlength=labels.max() + 1) for c in range(len(partition))]
    )


def make(name: str, task: Task, clients: int, seed: int = 0, **parameters: Any) -> Listed:
    """The partition, after checks that hold for every partition with exclusive owners. Warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        partition: Listed = PARTITIONS[name](task, clients, seed, **parameters)
    sizes = np.diff(partition.starts)
    assert len(partition) == clients and sizes.min() >= parameters.get("min_samples", 1)
    assert np.array_equal(np.sort(partition.indices), np.arange(task.num_train)) and partition.indices.dtype == np.int64
    assert 0 <= partition.moved < task.num_train and not partition.held_out.any()
    return partition


def test_the_promised_partitions_are_there() -> None:
    names = {"iid", "dirichlet", "dirichlet-client", "shards", "labels", "labels-equal", "quantity", "natural"}
    assert names | {"resample"} <= set(PARTITIONS)


@every_partition
class TestEveryPartition:
    def test_a_thousand_clients_take_less_than_a_second(self, name: str) -> None:
        parameters: dict[str, Any] = {"alpha": 0.1} if name in WITH_ALPHA else {}
        task, started = even(50_000), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            partition = PARTITIONS[name](task, 1000, 0, **parameters)
        assert time.process_time() - started < 1.0 and len(partition) == 1000

    def test_it_is_keyed_by_its_seed(self, name: str) -> None:
        partitions = [PARTITIONS[name](even(200), 20, seed) for seed in (0, 0, 1)]
        a, b, c = ([partition.client(i).tolist() for i in range(20)] for partition in partitions)
        assert a == b and a != c

    def test_no_clients_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="clients = 0: must be at least 1"):
            PARTITIONS[name](even(30), 0, 0)

    def test_it_says_where_it_is_from(self, name: str) -> None:
        import sys

        assert "arXiv" in (sys.modules[PARTITIONS[name].__module__].__doc__ or "")

    def test_it_says_whether_clients_share_samples(self, name: str) -> None:
        assert PARTITIONS[name](even(30), 10, 0).exclusive == (name not in SHARING)


@dividing_partition
class TestEveryPartitionThatDivides:
    @given(data=st.data())
    @settings(max_examples=40, deadline=None)
    def test_each_sample_has_one_owner_and_no_client_is_empty(self, name: str, data: st.DataObject) -> None:
        k = data.draw(st.integers(1, 5))
        labels = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=60)))
        clients = data.draw(st.integers(1, len(labels)))
        own = registry.parameters(PARTITIONS[name])
        drawn: dict[str, Any] = {}
        if "alpha" in own:
            drawn["alpha"] = data.draw(st.one_of(st.sampled_from([5e-324, 1e-6, 1e6, 1e300]), st.floats(1e-4, 1e3)))
        if "min_samples" in own:
            drawn["min_samples"] = data.draw(st.integers(1, len(labels) // clients))
        if "shards_per_client" in own:
            drawn["shards_per_client"] = data.draw(st.integers(1, 4))
        if "labels_per_client" in own:
            known = len(np.unique(labels))
            least = -(-known // clients) if name == "labels-equal" else 1 if clients >= known else known
            drawn["labels_per_client"] = data.draw(st.integers(least, known))
        make(name, task_of(labels, owners=np.arange(len(labels))), clients, data.draw(st.integers(0, 2**31)), **drawn)

    def test_more_clients_than_samples_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="clients = 31: .* at most 30 clients"):
            PARTITIONS[name](even(30), 31, 0)

    def test_one_client_has_all(self, name: str) -> None:
        parameters = {"labels_per_client": 10} if name.startswith("labels") else {}
        assert len(make(name, even(30), 1, **parameters).client(0)) == 30


@pytest.mark.parametrize("name", OF_LABELS)
def test_partitions_of_labels_need_labels(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"partition\.name = '{name}': task 'toy' has no class labels .* iid, quantity or natural"
    ):
        PARTITIONS[name](task_of(None, 30), 3, 0)


@pytest.mark.parametrize("name", WITH_ALPHA)
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_that_is_no_positive_number_is_refused(name: str, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"partition\.alpha = {alpha}: must be a finite number above 0"):
        PARTITIONS[name](even(30), 3, 0, alpha=alpha)


@pytest.mark.parametrize("name", ["dirichlet", "quantity"])
class TestRepair:
    @pytest.mark.parametrize(
        "least, message",
        [(0, "at least 1"), (11, "3 clients would need 33 samples, task 'toy' has 30; choose at most 10")],
    )
    def test_a_minimum_that_is_impossible_is_refused(self, name: str, least: int, message: str) -> None:
        with pytest.raises(ValueError, match=rf"partition\.min_samples = {least}: .*{message}"):
            PARTITIONS[name](even(30), 3, 0, min_samples=least)

    def test_moved_samples_are_counted_and_reported(self, name: str) -> None:
        with pytest.warns(
            UserWarning,
            match=r"partition: \d+ of 100 samples \([\d.]+%\) were moved to give each of 20 clients at least 5: "
            r"\d+ clients \([\d.]+%\) had fewer, and have 5 now; the partition is more even than its parameters say",
        ):
            partition = PARTITIONS[name](even(100), 20, 0, alpha=1e-6, min_samples=5)
        # Each client must end with exactly 5. Each class of 10 (dirichlet) or all 100 samples (quantity) had one owner,
        # so at most 10 clients had samples, and at least 10 x 5 were moved.
        assert np.diff(partition.starts).tolist() == [5] * 20 and 50 <= partition.moved <= 95
        assert 10 <= partition.filled <= 19

    def test_few_samples_for_many_clients_are_reported_too(self, name: str) -> None:
        # At most 10 clients had samples before the repair: 10 to 19 clients were empty, and 19 of 400 is 4.75 %.
        with pytest.warns(UserWarning, match=r"had fewer, and have 1 now"):
            partition = PARTITIONS[name](even(400), 20, 0, alpha=1e-6)
        assert np.diff(partition.starts).min() == 1 and 10 <= partition.moved == partition.filled <= 19

    def test_nothing_moves_where_nothing_must(self, name: str) -> None:
        partition = make(name, even(500), 10, alpha=100.0)
        assert partition.moved == partition.filled == 0


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = np.diff(make("iid", even(103), 10).starts)
    assert sorted(sizes) == [10] * 7 + [11] * 3


def test_dirichlet_small_alpha_gives_a_class_to_one_client_and_large_to_all_alike() -> None:
    task = even(1000)
    assert task.labels is not None
    few = table(make("dirichlet", task, 10, alpha=1e-6), task.labels)
    assert (
        np.sort(few, 0)[-1].min() >= 91
    )  # Each class has one owner with all 100 samples, less at most 9 that were moved to empty clients.
    alike = table(make("dirichlet", task, 10, alpha=1e6), task.labels)
    assert alike.min() >= 9 and alike.max() <= 11  # shares .1 +- 1e-4 of 100, cut to whole samples


def test_dirichlet_shares_have_the_variance_of_the_distribution() -> None:
    """A share of Dir(alpha, C times) has variance (C - 1) / (C^2 (C alpha + 1)); ``balance`` would change it."""
    labels = np.repeat(np.arange(400), 200)
    shares = table(make("dirichlet", task_of(labels), 5, alpha=0.5, balance=False), labels) / 200
    assert shares.mean() == pytest.approx(0.2)
    # 4 / (25 * 3.5) = .0457; over 400 classes x 5 clients the relative error of the estimate is a few percent
    assert shares.var() == pytest.approx(4 / (25 * 3.5), rel=0.15)


def test_dirichlet_balance_stops_at_the_mean() -> None:
    task = even(1000)
    sizes = {
        balance: np.diff(make("dirichlet", task, 10, alpha=0.02, balance=balance).starts) for balance in (True, False)
    }
    # A client below the mean (100) takes at most one more class (100); without the cap, some client gets more in this
    # draw.
    assert sizes[True].max() < 200 < sizes[False].max()


def test_dirichlet_client_has_equal_sizes_and_mixes_around_the_whole() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    task = task_of(labels)
    partition = make("dirichlet-client", task, 7, alpha=1.0)
    assert sorted(np.diff(partition.starts)) == [142, 143, 143, 143, 143, 143, 143] and partition.moved == 0
    alike = table(make("dirichlet-client", task, 10, alpha=1e9), labels)
    # draws of 100 by (.6, .3, .1): standard deviation of the first 4.9; 4 of these
    assert np.abs(alike - [60, 30, 10]).max() < 20
    apart = table(make("dirichlet-client", task, 10, alpha=1e-6), labels)
    # One label per client while samples of it are left: of ten clients of 100, only the last ones have several labels.
    assert (apart.max(1) == 100).sum() >= 7


def test_shards_are_two_labels_a_client() -> None:
    task = even(6000)
    assert task.labels is not None
    # McMahan's: 100 clients, 200 shards of 30; classes of 600 = 20 shards each, so a shard has one label
    found = table(make("shards", task, 100), task.labels)
    assert (found.sum(1) == 60).all() and ((found > 0).sum(1) <= 2).all() and set(found.flatten()) == {0, 30, 60}


def test_shards_are_refused_below_one() -> None:
    with pytest.raises(ValueError, match=r"partition\.shards_per_client = 0"):
        PARTITIONS["shards"](even(30), 3, 0, shards_per_client=0)


def test_each_client_has_the_requested_number_of_labels_and_they_are_shared_fairly() -> None:
    task = even(5000)
    assert task.labels is not None
    found = table(make("labels-equal", task, 25, labels_per_client=3), task.labels)
    assert ((found > 0).sum(1) == 3).all()
    # 75 places for 10 labels: 7 or 8 owners each; 500 samples shared by 8 or 7: 62, 63, 71 or 72
    assert set((found > 0).sum(0)) == {7, 8} and set(found[found > 0]) <= {62, 63, 71, 72}


@pytest.mark.parametrize(
    "clients, each, message",
    [(9, 1, "choose at least 2, or more clients"), (5, 11, r"choose 1\.\.10"), (5, 0, r"choose 1\.\.10")],
)
def test_numbers_of_labels_that_are_impossible_are_refused(clients: int, each: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"partition\.labels_per_client = {each}: .*{message}"):
        PARTITIONS["labels-equal"](even(100), clients, 0, labels_per_client=each)


def test_quantity_skews_sizes_and_not_labels() -> None:
    task = even(400_000)
    assert task.labels is not None
    partition = make("quantity", task, 4000, alpha=0.5)
    sizes = np.diff(partition.starts)
    # A share of Dir(.5, 4000 times) has the squared coefficient of variation (C - 1) / (C alpha + 1) = 2.0; its
    # estimate from 4000 numbers like Gamma(.5) (kurtosis 15) has relative standard deviation sqrt(14 / 4000) = .06; 4
    # of these
    assert (sizes.std() / sizes.mean()) ** 2 == pytest.approx(2.0, rel=0.24)
    found = np.bincount(task.labels[partition.client(int(sizes.argmax()))], minlength=10) / sizes.max()
    # a class share's standard deviation sqrt(.09 / 1000) = .0095; 4 of these
    assert sizes.max() > 1000 and np.abs(found - 0.1).max() < 0.038


class TestNatural:
    OWNERS = np.array([3, 0, 3, 1, 2, 2, 4, 4, 4, 1])

    def test_each_natural_client_is_a_client(self) -> None:
        partition = make("natural", task_of(None, 10, self.OWNERS), 5)
        assert [partition.client(c).tolist() for c in range(5)] == [[1], [3, 9], [4, 5], [0, 2], [6, 7, 8]]

    def test_fewer_clients_are_groups_of_whole_ones(self) -> None:
        partition = make("natural", task_of(None, 10, self.OWNERS), 2)
        groups = [set(self.OWNERS[partition.client(c)]) for c in range(2)]
        assert not groups[0] & groups[1] and sorted(map(len, groups)) == [2, 3]

    def test_more_are_refused(self) -> None:
        with pytest.raises(ValueError, match="clients = 6: task 'toy' has 5 natural clients; choose at most 5"):
            PARTITIONS["natural"](task_of(None, 10, self.OWNERS), 6, 0)

    def test_a_task_without_them_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"partition\.name = 'natural': task 'toy' does not say whose"):
            PARTITIONS["natural"](task_of(None, 10), 2, 0)
