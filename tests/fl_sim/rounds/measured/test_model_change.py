"""The change of the global model, and what a model may not be."""

import pytest
import torch

from fl_sim.rounds.measured.model_change import change_of
from fl_sim.tree import Tree
from fl_sim.wire import records

OLD = {"w": torch.zeros(2), "n": torch.tensor(3)}


def test_the_change_is_the_norm_over_all_leaves() -> None:
    new = {"w": torch.tensor([3.0, 4.0]), "n": torch.tensor(9)}  # 3, 4, 5; whole numbers do not count
    assert change_of(new, OLD, records.encode(new), False) == (5.0, "")


@pytest.mark.parametrize("any_form", [False, True])
@pytest.mark.parametrize(
    ("new", "what"),
    [
        ({"w": torch.zeros(3)}, "wrong shape"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, "wrong dtype"),
        ({"v": torch.zeros(2)}, "wrong keys"),
        ({"w": torch.tensor([0, float("nan")])}, "NaN or infinity in w"),
    ],
)
def test_what_is_no_next_model(new: Tree, what: str, any_form: bool) -> None:
    """A foreign strategy's may have another form; it may not have NaN."""
    whole = {**new, "n": torch.tensor(3)}
    found = change_of(whole, OLD, records.encode(whole), any_form)[1]
    assert found.startswith(what) if not any_form or "NaN" in what else not found
