"""Natural clients crossed with labels: whose samples and which labels a client has."""

import numpy as np
import pytest
import torch

from clients.partitions.natural_labels import natural_labels
from fl_sim.learning.task import Task


def task_of(writers: int, each: int, classes: int = 10) -> Task:
    """``each`` samples of every class from every writer."""
    y = np.tile(np.repeat(np.arange(classes), each), writers)
    owners = np.repeat(np.arange(writers), classes * each)
    return Task("toy", {"x": torch.zeros(len(y), 1), "y": torch.from_numpy(y)}, {}, classes, labels=y, clients=owners)


def test_each_client_has_one_writer_and_at_most_three_labels() -> None:
    """Ten labels in fours of clients: 3 + 3 + 2 + 2."""
    task = task_of(6, 2)
    partition = natural_labels(task, 24, 0)
    assert task.clients is not None and task.labels is not None
    dealt = []
    for c in range(24):
        own = partition.client(c)
        labels = np.unique(task.labels[own])
        assert len(np.unique(task.clients[own])) == 1 and len(own) == 2 * len(labels)
        dealt.append(labels.tolist())
    for first in range(0, 24, 4):
        assert sorted(label for own in dealt[first : first + 4] for label in own) == list(range(10))
        assert sorted(map(len, dealt[first : first + 4])) == [2, 2, 3, 3]
        assert len({int(task.clients[partition.client(c)[0]]) for c in range(first, first + 4)}) == 1
    assert dealt[0] != dealt[4] and partition.moved == 0


def test_fewer_clients_are_groups_of_writers() -> None:
    task = task_of(6, 1)
    partition = natural_labels(task, 8, 0, labels_per_client=3)
    assert task.clients is not None
    writers = [set(task.clients[partition.client(c)].tolist()) for c in range(8)]
    assert writers[0] == writers[3] and not writers[0] & writers[4] and len(writers[0] | writers[4]) == 6


def test_what_does_not_divide_is_told_and_what_cannot_be_is_refused() -> None:
    with pytest.warns(UserWarning, match="the last 2 of 6 clients have up to 5 labels, the others 3; a multiple of 4"):
        natural_labels(task_of(6, 2), 6, 0)
    with pytest.raises(ValueError, match="clients = 28: task 'toy' has 6 natural clients, each divided among 4;.* 24"):
        natural_labels(task_of(6, 2), 28, 0)
    with pytest.raises(ValueError, match=r"partition\.labels_per_client = 11: task 'toy' has 10 labels"):
        natural_labels(task_of(6, 2), 4, 0, labels_per_client=11)
    bare = Task("toy", task_of(1, 1).train, {}, 10, labels=np.arange(10))
    with pytest.raises(ValueError, match="'natural-labels': task 'toy' does not say whose"):
        natural_labels(bare, 4, 0)
