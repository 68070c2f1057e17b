"""Parts of CIFAR-10 are the same in each run, and may share no picture."""

import numpy as np
import pytest
import torch

from experiments.studies import part_of_cifar10 as module
from experiments.studies.part_of_cifar10 import part_of_cifar10
from fl_sim.learning.task import Task


@pytest.fixture(autouse=True)
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are numbers: 20 for training, 10 for testing."""
    train, test = ({"x": torch.arange(n).float(), "y": torch.arange(n) % 2} for n in (20, 10))
    task = Task("cifar10", train, test, outputs=2, labels=np.arange(20) % 2)
    monkeypatch.setattr(module, "cifar10", lambda data_dir: task)


def numbers(task: Task) -> tuple[list[float], list[float]]:
    return task.train["x"].tolist(), task.test["x"].tolist()


def test_a_part_is_drawn_by_a_key_and_two_parts_are_disjoint() -> None:
    part, more = part_of_cifar10(train=6, test=4), part_of_cifar10(train=9, test=5)
    assert numbers(part) == numbers(part_of_cifar10(train=6, test=4)) and len(part.train["y"]) == 6
    assert set(numbers(part)[0]) < set(numbers(more)[0]) and set(numbers(part)[1]) < set(numbers(more)[1])
    rest = part_of_cifar10(train=14, skip=6)
    assert sorted([*numbers(part)[0], *numbers(rest)[0]]) == list(range(20))
    assert part.labels is not None and part.labels.tolist() == [int(x) % 2 for x in numbers(part)[0]]
