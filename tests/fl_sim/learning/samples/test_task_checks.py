"""Tasks that a user builds: all rows are checked before a run; clients under any ids are numbered."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fl_sim import Task, from_arrays
from fl_sim.errors import ConfigError
from fl_sim.learning.measures import squared_error
from fl_sim.learning.samples.task_checks import check_range, checked

X, Y = torch.ones(6, 2), torch.arange(6) % 3
TASK = Task("own", {"x": X, "y": Y}, {"x": X[:2], "y": Y[:2]}, 3, labels=Y.numpy(), clients=np.arange(6) % 2)


def test_a_good_task_is_returned_as_it_is() -> None:
    assert checked(TASK) is TASK
    arrays = from_arrays(X, Y, clients=["b", "a", "b", "a", "b", "a"])
    assert checked(arrays) is arrays
    assert checked(replace(TASK, test={})).test == {}
    wider = replace(TASK, test={"x": torch.ones(2, 7), "y": Y[:2]})  # a sequence may be longer
    assert checked(wider) is wider


def nan(row: int) -> torch.Tensor:
    """X with NaN in one row."""
    x = X.clone()
    x[row, 1] = torch.nan
    return x


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"train": {"x": nan(4), "y": Y}}, "task own: train x holds NaN in row 4"),
        ({"test": {"x": nan(1)[:2], "y": Y[:2]}}, "test x holds NaN in row 1"),
        ({"outputs": 2}, r"train y holds 2 in row 2, which is no class of 0..1"),
        ({"train": {"x": X, "y": torch.tensor([0, 1, 2, 0, 1, -1])}}, "train y holds -1 in row 5"),
        ({"test": {"x": X[:2], "y": torch.tensor([0, 3])}}, "test y holds 3 in row 1"),
        ({"train": {"x": X[:5], "y": Y}}, "train x has 5 rows, train y has 6"),
        ({"train": {"y": Y}}, "train lacks x"),
        ({"train": {"x": X[:0], "y": Y[:0]}}, "train has no samples"),
        ({"labels": Y.numpy()[:4]}, "labels has 4 rows, train has 6"),
        ({"clients": np.zeros(7, int)}, "clients has 7 rows, train has 6"),
        ({"test": {"x": X[:2].to(torch.uint8), "y": Y[:2]}}, "x holds numbers .float32., x_test pixels"),
        ({"clients": np.array([1.0, np.nan] * 3)}, r"clients has no id in row 1 \(nan\), as in 3 of 6 rows"),
        ({"clients": np.array(["a", None] * 3, object)}, r"clients has no id in row 1 \(None\)"),
        ({"clients": ["a", 1] * 3}, "clients mixes kinds of ids"),
        ({"outputs": 3.0}, "outputs = 3.0: must be an integer of 1 or more"),
        ({"ignore_index": True}, "ignore_index = True: must be an integer"),
        ({"class_axis": 7}, "class_axis = 7: must be 'auto', 1 or -1"),
        ({"train": {"x": X.numpy(), "y": Y}}, "train x is of type ndarray; give tensors"),
        ({"test": {"x": X[:2], "y": Y[:2].float()}}, "y holds int64, y_test holds float32; give both the same form"),
        (
            {"train": {"x": X, "y": Y.float()}, "test": {}},
            "y holds float32, which are no classes, but .*loss=fl_sim.squared_error",
        ),
        ({"train": {"x": X.to_sparse(), "y": Y}}, "train x is a tensor of another layout, sparse_coo: pass"),
        (
            {"train": {"x": X, "y": torch.tensor([2**63 + 5] * 6, dtype=torch.uint64)}, "loss": squared_error},
            "train y holds integers of 2.63 or more; give them as float64",
        ),
        ({"client_names": np.array(["a"])}, "clients must be places 0..0 in client_names; they are 0..1"),
    ],
)
def test_a_bad_task_is_refused_with_row_and_cure(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(replace(TASK, **changed))


def test_lists_of_names_and_no_test_set_are_taken() -> None:
    given: Any = {"client_names": ["u", "v"], "class_names": ["a", "b", "c"], "test": None, "outputs": np.int64(3)}
    task = checked(replace(TASK, **given))
    assert task.client_names is not None and task.class_names is not None
    assert (task.client_names.tolist(), task.class_names.tolist(), task.test) == (["u", "v"], ["a", "b", "c"], {})


def test_a_loss_of_the_users_decides_what_labels_mean() -> None:
    own = replace(TASK, loss=squared_error, outputs=1)
    assert checked(own) is own


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.uint16, torch.uint64])
def test_classes_of_every_type_of_integers_become_int64(dtype: torch.dtype) -> None:
    halves = {"train": {"x": X, "y": (Y % 2).to(dtype)}, "test": {"x": X[:2], "y": Y[:2]}}
    found = checked(replace(TASK, **halves))
    assert found.train["y"].dtype == torch.int64 and found.train["y"].tolist() == (Y % 2).tolist()
    assert found.test is halves["test"] and found.train["x"] is X
    if dtype == torch.int32:
        assert checked(replace(TASK, **halves, loss=squared_error)).train["y"].dtype == dtype


def test_clients_under_any_ids_are_numbered_and_keep_their_names() -> None:
    found = checked(replace(TASK, clients=np.array([7, 3, 7, 3, 9, 3])))
    assert found.clients is not None and found.clients.tolist() == [1, 0, 1, 0, 2, 0]
    assert found.client_names is not None and found.client_names.tolist() == [3, 7, 9] and found.num_clients == 3
    assert found.subset(np.array([1, 3])).num_clients == 3


def test_numbers_that_are_infinite_in_the_runs_precision_are_refused() -> None:
    large = torch.ones(6, 2, dtype=torch.float64)
    large[3, 0] = -1e300
    for half in ("train", "test"):
        with pytest.raises(ConfigError, match=f"dtype = 'float32': task own: {half} x holds .* in row 3; scale it"):
            check_range(replace(TASK, **{half: {"x": large, "y": Y}}), torch.float32)
        check_range(replace(TASK, **{half: {"x": large, "y": Y}}), torch.float64)
    check_range(TASK, torch.float32)


def test_what_is_suspicious_is_noted_once() -> None:
    far = replace(TASK, train={"x": X * 1000, "y": Y})
    noted = checked(far)
    assert "differ in scale" in noted.notes[0] and checked(noted) is noted
