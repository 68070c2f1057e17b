"""What a local rule returns is refused by name where it is no tree of tensors."""

from typing import Any

import pytest
import torch

from fl_sim.learning.returned import checked, trees

X = torch.ones(2)


@pytest.mark.parametrize(
    "result, message",
    [
        (None, "local_update returned None; it must return (reply, new state, metrics)"),
        (({"w": X}, {}), "local_update returned a tuple of 2; it must"),
        (({"w": X}, None, {}), "the new state of local_update is None; it must be tensors by name; {} keeps the state"),
        (([X], {}, {}), "the reply of local_update is a list of 1; it must be tensors by name"),
        (({}, {"n": 1.5}, {}), "n in the new state of local_update is of type float; it must be a tensor"),
        (({}, {"n": X.numpy()}, {}), "n in the new state of local_update is of type ndarray; it must be a tensor"),
        (({}, {"n": {"a": X}}, {}), "n in the new state of local_update is of type dict; it must be a tensor"),
        (({}, {0: X}, {}), "the new state of local_update has the name 0; names must be text"),
        (({}, {"n": X.to_sparse()}, {}), "n in the new state of local_update is of the layout torch.sparse_coo; it"),
        (({}, {}, {"loss": 0.3}), "loss in the metrics of local_update is of type float; it must be a tensor"),
    ],
)
def test_anything_else_is_refused_by_name(result: Any, message: str) -> None:
    with pytest.raises(TypeError) as error:
        trees(result)
    assert message in str(error.value)


def test_tensors_by_name_are_taken() -> None:
    state = {"n": torch.nn.Parameter(X), "": torch.zeros(0)}
    assert trees([{"w": X}, state, {}])[1] is state
    assert trees(({}, {}, {})) == ({}, {}, {})
    with pytest.raises(TypeError, match="the state of initial_state is None"):
        checked("the state of initial_state", None)
