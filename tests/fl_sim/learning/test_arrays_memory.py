"""The samples of a task from arrays are its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fl_sim import from_arrays


@pytest.mark.parametrize("kind", [np.array, torch.tensor, pd.DataFrame])
def test_what_is_written_into_arrays_later_does_not_change_the_task(kind: Any) -> None:
    x, y = kind(np.ones((4, 2))), np.array([0, 1, 0, 1])
    task = from_arrays(x, y, x_test=x, y_test=y)
    if kind is pd.DataFrame:
        x.iloc[:, :] = 0
    else:
        x[:] = 0
    y[:] = 0
    assert task.train["x"].sum() == task.test["x"].sum() == 8 and task.train["y"].tolist() == [0, 1, 0, 1]


def test_types_that_numpy_lacks_are_kept_apart_too() -> None:
    x = torch.ones(4, 2, dtype=torch.bfloat16)
    task = from_arrays(x, [0, 1, 0, 1], x_test=x[:2], y_test=[0, 1])
    x[:] = 0
    assert task.train["x"].sum() == 8 and task.test["x"].sum() == 4


def test_a_file_that_is_mapped_into_memory_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), np.array([0, 1, 0, 1])
    assert np.shares_memory(from_arrays(x, y, x_test=x, y_test=y).train["x"].numpy(), x)
