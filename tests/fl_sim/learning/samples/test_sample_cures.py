"""What may be wrong with samples that are no error by themselves is said."""

import numpy as np
import torch

from fl_sim import from_arrays
from fl_sim.learning.samples.sample_cures import cure_of_inputs, cure_of_targets, one_class

X = np.arange(8.0).reshape(4, 2)


def test_words_that_stand_for_missing_values_are_told() -> None:
    sites = np.array(["basel", float("nan"), "bern", float("nan")])  # NumPy makes a word of NaN
    [note] = from_arrays(X, [0, 1, 0, 1], clients=sites).notes
    assert (
        note == "clients holds 'nan' in 2 rows, the first is row 1; if it stands for a missing value, drop these rows"
    )
    table, note = from_arrays(X, ["yes", "", "no", "no"]).notes
    assert "encoded" in table and note.startswith("y holds '' in 1 rows, the first is row 1; if it stands for")
    assert from_arrays(X, [0, 1, 0, 1], clients=["nana", "b", "b", "b"]).notes == ()


def test_a_single_class_is_told() -> None:
    told = ("y holds one class only, so that there is nothing to tell apart",)
    assert from_arrays(X, [0] * 4).notes == told and from_arrays(X, ["a"] * 4).notes[-1:] == told
    assert from_arrays(X, [0] * 4, loss=lambda outputs, batch: outputs[:, 0]).notes == ()
    assert one_class(torch.tensor([1, -100, 1]), -100) == told and one_class(torch.tensor([0, 1]), None) == ()
    assert one_class(torch.zeros(3), None) == one_class(torch.tensor([-100]), -100) == ()


def test_cures_name_the_type() -> None:
    assert "x.astype('float32')" in cure_of_inputs(torch.ones(2, 3, dtype=torch.int32))
    assert "x.reshape(-1, 1)" in cure_of_inputs(torch.ones(2)) and cure_of_inputs(torch.ones(2, 3)) == ""
    assert cure_of_targets(torch.ones(2).byte()).startswith("y holds uint8, which reaches the loss as floats")
    assert "int64: y.long()" in cure_of_targets(torch.ones(2).int())
    assert cure_of_targets(torch.ones(2)) == cure_of_targets(torch.ones(2).long()) == ""
