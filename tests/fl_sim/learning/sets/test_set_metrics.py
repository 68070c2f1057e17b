"""A user's functions and objects as set metrics."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.sets.set_metrics import OfFunction, OfObject, as_numbers, own_metric


class Sums:
    """What torchmetrics' objects have."""

    def __init__(self) -> None:
        self.blocks: list[float] = [99.0]

    def reset(self) -> None:
        self.blocks = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.blocks.append(float(outputs.sum()))

    def compute(self) -> Tensor:
        return torch.tensor(self.blocks)


def test_objects_are_copied_reset_and_updated_in_order() -> None:
    mine = Sums()
    metric = own_metric("mine", mine)
    for _ in range(2):
        running = metric.fresh()
        for block in ([1.0, 2.0], [5.0]):
            running.update(torch.tensor(block), torch.zeros(len(block)))
        assert isinstance(running, OfObject) and as_numbers(running.compute()).tolist() == [3.0, 5.0]
    assert mine.blocks == [99.0]


def test_functions_get_all_at_once() -> None:
    metric = own_metric("mine", lambda outputs, targets: torch.stack([outputs.sum(), targets.sum()]))
    running = metric.fresh()
    for block in ([1.0, 2.0], [5.0]):
        running.update(torch.tensor(block), torch.ones(len(block)))
    assert isinstance(running, OfFunction) and as_numbers(running.compute()).tolist() == [8.0, 3.0]
    assert running.bytes_kept(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)) == 40 + 40


@pytest.mark.parametrize("value", [3, 2.5, np.float32(2.5), torch.tensor(True), np.arange(3), torch.eye(2)])
def test_numbers_vectors_and_matrices(value: Any) -> None:
    got = as_numbers(value)
    assert got.dtype in (torch.int64, torch.float64) and got.tolist() == torch.as_tensor(value).tolist()


@pytest.mark.parametrize("value", ["a", {"f1": 1.0}, (1, 2), torch.zeros(1, 1, 1), torch.zeros(2, dtype=torch.cfloat)])
def test_other_results_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="it must give a number, or a tensor with one or two axes"):
        as_numbers(value)


def test_none_is_undefined_and_classes_are_refused() -> None:
    assert as_numbers(None).isnan()
    for given in (3, "f1", Sums):
        with pytest.raises(ConfigError, match=r"set_metrics\['mine'\] = .*must be a function of \(outputs, targets\)"):
            own_metric("mine", given)
