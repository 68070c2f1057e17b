"""Parameters that a loss or a network keeps beside the model are told, because no client trains them."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.learning.probe import probe
from fl_sim.learning.trials.own_parameters import parameters_of
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(12, 4)), DRAW.integers(0, 3, 12)


def warning_of(loss: Any, module: nn.Module | None = None) -> str:
    task = from_arrays(X, Y, x_test=X, y_test=Y, outputs=3, loss=loss)
    return probe(Loss(module or nn.Linear(4, 3), task, torch.float64)).warning


def centre_loss(centres: Tensor) -> Any:
    return lambda o, b: F.cross_entropy(o, b["y"], reduction="none") + (o - centres[b["y"]]).square().sum(1)


def test_centres_that_would_never_move_are_told_with_their_shape() -> None:
    centres = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    found = warning_of(centre_loss(centres))
    assert "the loss uses 1 parameter (shape (3, 3)) that the model does not have, and that no client t" in found
    assert "call .requires_grad_(False)" in found
    assert warning_of(centre_loss(centres.detach())) == "" and centres.grad is None


@pytest.mark.parametrize("kept", ["no_grad", "frozen", "neither"])
def test_a_teacher_in_the_loss_may_stay_and_is_told_where_it_is_not_frozen(kept: str) -> None:
    teacher = nn.Linear(4, 3).double().requires_grad_(kept != "frozen")

    def distil(o: Tensor, b: Tree) -> Tensor:
        with torch.set_grad_enabled(kept != "no_grad"):
            target = teacher(b["x"])
        return (o - target).square().sum(1)

    found = warning_of(distil)
    assert (found == "") == (kept != "neither")
    if kept == "neither":
        assert "the loss uses 2 parameters (shape (3" in found


def test_layers_in_a_plain_list_are_told_as_the_networks() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.layers = nn.Linear(4, 3), [nn.Linear(4, 4).double()]

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(self.layers[0](x))
            return result

    assert warning_of(None, Hidden()).startswith("the network uses 2 parameters")


def test_a_loss_through_its_own_parameters_alone_has_no_gradient() -> None:
    """The loss requires a gradient, but not of the model."""
    centres = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ConfigError, match="loss has no gradient: no parameter that trains takes part"):
        warning_of(lambda o, b: (o.detach() - centres[b["y"]]).square().sum(1))


def test_each_leaf_is_found_once() -> None:
    a, b, frozen = (torch.ones(2, requires_grad=grad) for grad in (True, True, False))
    assert {id(x) for x in parameters_of((a * b + a.exp() * frozen).sum())} == {id(a), id(b)}
    assert parameters_of(a)[0] is a and parameters_of(frozen.sum()) == []
