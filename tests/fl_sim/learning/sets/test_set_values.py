"""What set metrics get of a block: labels one by one, without those that do not count, and never the original."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fl_sim import Task, from_arrays
from fl_sim.errors import ConfigError
from fl_sim.learning.sets.class_metrics import Confusion
from fl_sim.learning.sets.set_metrics import own_metric
from fl_sim.learning.sets.set_values import set_values

KEYED = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(5, 2, 3, generator=KEYED)  # 5 sequences of 2 labels, 3 classes
LABELS = torch.randint(0, 3, (5, 2), generator=KEYED)


def task(**changes: object) -> Task:
    plain = from_arrays(torch.zeros(5, 1), LABELS, outputs=3, x_test=torch.zeros(5, 1), y_test=LABELS)
    return replace(plain, set_metrics={"confusion": Confusion(), "seen": own_metric("seen", seen)}, **changes)


def seen(outputs: Tensor, targets: Tensor) -> Tensor:
    """The shapes that a function gets; it writes into what it gets."""
    shapes = torch.tensor([*outputs.shape, -1, *targets.shape])
    outputs.fill_(7), targets.fill_(7)
    return shapes


def counts(outputs: Tensor, labels: Tensor) -> list[list[int]]:
    """By hand, from rows (n, 3)."""
    predicted = outputs.argmax(1)
    return [[int(((labels == i) & (predicted == j)).sum()) for j in range(3)] for i in range(3)]


@pytest.mark.parametrize("axis", [1, -1])
def test_the_class_axis_and_ignored_labels(axis: int) -> None:
    outputs = OUTPUTS if axis == -1 else OUTPUTS.movedim(-1, 1)
    rows, labels = OUTPUTS.flatten(0, 1), LABELS.flatten()
    for mark, counted in ((None, torch.ones(10, dtype=torch.bool)), (2, labels != 2)):
        before = outputs.clone(), LABELS.clone()
        values = set_values(
            task(class_axis=axis, ignore_index=mark), [(outputs[:2], LABELS[:2]), (outputs[2:], LABELS[2:])]
        )
        assert values["confusion"].tolist() == counts(rows[counted], labels[counted])
        n = int(counted.sum())
        assert values["seen"].tolist() == ([*outputs.shape, -1, 5, 2] if mark is None else [n, 3, -1, n])
        assert torch.equal(outputs, before[0]) and torch.equal(before[1], LABELS)


def test_no_samples_or_no_labels_that_count_are_undefined() -> None:
    assert all(v.isnan() for v in set_values(task(), []).values())
    assert all(v.isnan() for v in set_values(task(), [(OUTPUTS[:0], LABELS[:0])]).values())
    ignored = set_values(task(class_axis=-1, ignore_index=2), [(OUTPUTS, torch.full_like(LABELS, 2))])
    assert all(v.isnan() for v in ignored.values())


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="the labels hold 3, where the model's 3 outputs stand for 0..2"):
        set_values(task(class_axis=-1), [(OUTPUTS, LABELS + 1)])
