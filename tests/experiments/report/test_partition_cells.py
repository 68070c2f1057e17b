"""Partitions of a page: every client where there are few, groups of clients where there are many."""

import numpy as np

from experiments.report.found_runs import folders, read_runs
from experiments.report.partition_cells import cells, partitions


def test_few_clients_have_a_column_each(make_run) -> None:
    make_run("a", seed=1)
    make_run("b")
    notes: list[str] = []
    [one] = partitions(read_runs(folders([make_run("c", strategy="fedprox").parent])).found, notes)
    assert one["runs"] == ["fedavg", "fedprox"] and notes == []
    assert (one["x"], one["y"], one["z"], one["unit"]) == (["0", "1"], ["cat", "dog"], [[3, 1], [0, 4]], "samples")


def test_many_clients_are_groups_with_mean_shares() -> None:
    counts = np.zeros((10_000, 10), int)
    counts[np.arange(10_000), np.arange(10_000) % 10] = np.arange(10_000) % 7 + 1  # one label each
    one = cells(counts, list(map(str, range(10_000))), list("abcdefghij"))
    shares = np.array(one["z"])
    assert shares.shape == (10, 200) and (shares.sum(0) == 1).all() and (shares.max(0) == 1).all()
    assert (shares.argmax(0) == np.repeat(np.arange(10), 20)).all()  # sorted by the most frequent label
    assert one["x"][0] == "1-50" and one["x"][-1] == "9951-10000" and "10000 clients" in one["note"]


def test_clients_without_labels_and_too_many_labels() -> None:
    one = cells(np.arange(1000)[:, None], list(map(str, range(1000))), ["samples"])
    assert np.array(one["z"]).shape == (1, 200) and one["z"][0][0] == 997 and one["z"][0][-1] == 2
    counts = np.ones((5, 500), int)
    counts[:, 77] = 9
    one = cells(counts, list("abcde"), list(map(str, range(500))))
    assert len(one["y"]) == 200 and "77" in one["y"] and "200 most frequent of 500 labels" in one["note"]
