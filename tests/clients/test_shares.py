"""What a user's partition, shares and functions may be, and how a wrong one is named."""

from typing import Any

import numpy as np
import pytest

from clients.shares import as_partition, making, without_validation
from clients.tasks.sinusoid import sinusoid
from fl_sim import from_arrays
from fl_sim.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ([[0.5, 1]], "makes a list that cannot be read .a client's indices are no whole numbers"),
        (
            [np.array([True, False])],
            "makes a list that cannot be read .a client's indices are a mask of truth values; np.flatnonzero",
        ),
        ([[0, 1], [9]], r"index 9; indices must be numbers of 0\.\.3"),
        ([[0, -1]], r"index -1; indices must be numbers of 0\.\.3"),
    ],
)
def test_indices_that_are_none_are_named(source: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^partition.name = 'mine': {why}"):
        as_partition(source, "mine", 4)


def test_whole_numbers_of_any_type_are_indices() -> None:
    partition = as_partition([np.array([0.0, 2.0]), np.array([1], np.uint8), (3,)], "mine", 4)
    assert [partition.client(c).tolist() for c in range(3)] == [[0, 2], [1], [3]]


def test_a_validation_share_that_leaves_nothing_to_train_is_named() -> None:
    task = from_arrays(np.ones((20, 2), np.float32), np.arange(20) % 2)
    with pytest.raises(ValueError, match="^validation = 0.99: keeps all 16 training samples"):
        without_validation(task, 0, 0.99)


def test_an_error_of_foreign_code_is_named_by_the_setting_and_our_own_passes() -> None:
    named = "^task.name = 'mine:make': cannot be made: ValueError: invalid literal"
    with pytest.raises(ConfigError, match=named), making("task.name", "mine:make"):
        int("x")
    with pytest.raises(ValueError, match="^task.seed = -1: must lie in"), making("task.name", "sinusoid"):
        sinusoid(seed=-1)
