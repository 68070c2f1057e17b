"""Features of every type: handled without a change of value, or refused with the row and the cure."""

import decimal

import numpy as np
import pytest
import torch

from fl_sim.learning.samples.sample_checks import BadSamples, check_finite, check_halves, numbers_of

X = np.arange(12, dtype=np.float32).reshape(4, 3)


class Table:
    """As much of a data frame as is looked at."""

    columns = ("age", "colour")

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.array([[1, "red"], [2, "blue"]], dtype=object)


@pytest.mark.parametrize(
    "x, dtype",
    [
        (X, torch.float32),
        (X[:, ::-1][:, ::-1], torch.float32),
        (X.astype(">f8"), torch.float64),
        (X.astype(np.longdouble), torch.float64),
        (X.astype(np.float16), torch.float16),
        (X.astype(np.int64), torch.int64),
        (X.astype(np.uint8), torch.uint8),
        (X.astype(np.uint16), torch.int32),
        (X.astype(np.uint32), torch.int64),
        (X.astype(np.uint64), torch.int64),
        (X.astype(object), torch.float64),
        (X.astype(int).astype(object), torch.int64),
        ([[decimal.Decimal(int(v)) for v in row] for row in X], torch.float64),
        ([torch.tensor(row) for row in X], torch.float32),
        (torch.tensor(X).requires_grad_(), torch.float32),
        (torch.tensor(X).bfloat16(), torch.bfloat16),
    ],
)
def test_numbers_of_every_type_keep_their_values(x: object, dtype: torch.dtype) -> None:
    found = numbers_of("x", x)
    assert found.dtype == dtype and found.tolist() == X.tolist() and not found.requires_grad


def test_views_backwards_are_copied_and_booleans_become_numbers() -> None:
    column = np.array([None, *X], dtype=object)[1:]  # as a table holds arrays
    assert numbers_of("x", column).tolist() == X.tolist() and numbers_of("x", column).dtype == torch.float32
    tensors = np.array([None, *map(torch.tensor, X)], dtype=object)[1:, None]  # a table with one column of tensors
    assert numbers_of("x", tensors).tolist() == X.tolist() and numbers_of("x", tensors).dtype == torch.float32
    assert numbers_of("x", X[::-1, ::-1]).tolist() == X[::-1, ::-1].tolist()
    flags = numbers_of("x", X > 5)
    assert flags.dtype == torch.float32 and flags.tolist() == (X > 5).astype(float).tolist()
    assert numbers_of("x", X).data_ptr() == X.ctypes.data  # no copy where none is needed


def with_value(value: object) -> np.ndarray:
    """X as objects with one other value, in row 2, column 1."""
    x = X.astype(object)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    "x, message",
    [
        (with_value("n/a"), "x holds text, 'n/a' in row 2, column 1; turn it into numbers first"),
        (with_value(None), "x holds a missing value .None. in row 2, column 1; fill it in or drop the row"),
        (with_value(float("nan")), "x holds NaN in row 2, the only such row"),
        (with_value([1.0]), "x holds samples of different shapes"),
        (with_value(1j), "x holds a complex in row 2, column 1, which is no number"),
        (with_value(-np.inf).astype(float), "x holds infinity in row 2"),
        (np.where(X > 5, np.nan, 0.0), "x holds NaN in row 2, one of 2 such rows"),
        (with_value(np.inf).astype(complex), "x holds infinity in row 2"),
        (Table(), "x holds text, 'red' in row 0, column 1 .'colour'."),
        (X.astype(str), r"x holds text, '0.0' in row 0; .*x.astype\('float32'\)"),
        (np.array([["2024-01-01"]], "M8[D]"), "x holds dates"),
        (np.ma.masked_greater(X, 7), "x has masked entries, the first in row 2"),
        (np.full((2, 1), 2**64 - 1, np.uint64), "integers of 2.63 or more"),
        ([[1, 2], [3]], "x has samples of different shapes"),
        ([torch.zeros(2), torch.zeros(3)], r"x has samples of the shapes \(2,\), \(3,\)"),
        (1.5, "x is a single value of type float"),
        (None, "x is None; it must be an array, a tensor, a list or a table"),
        ({"a": X}, "x is a dict; it must be an array"),
        (iter(X), "x is a .*iterator.*; it must be an array"),
        (torch.from_numpy(X).to_sparse(), r"x is a tensor of another layout, sparse_coo: pass x.to_dense\(\)"),
        (torch.from_numpy(X).to("meta"), "x is a tensor that is without numbers"),
        (torch.from_numpy(X).to(torch.float8_e4m3fn), r"x holds float8_e4m3fn, .*pass x.float\(\)"),
        (X[:0], "x has no rows"),
        (X[:, :0], r"x has rows of shape \(0,\), which hold no number"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place_and_the_cure(x: object, message: str) -> None:
    with pytest.raises(BadSamples, match=message):
        numbers_of("x", x)


def test_integers_and_empty_tensors_are_finite() -> None:
    check_finite("x", torch.arange(3))
    check_finite("x", torch.zeros(0, 3))


def halves(x: object, x_test: object, y: object = ((0.0,), (1.0,)), y_test: object = ((0.0,), (1.0,))) -> list[str]:
    """What ``check_halves`` says of these training and test samples."""
    tree = {"x": torch.as_tensor(x), "y": torch.as_tensor(y)}
    return check_halves(tree, {"x": torch.as_tensor(x_test), "y": torch.as_tensor(y_test)})


PIXELS = np.array([[0.0, 128.0], [255.0, 3.0]])


def test_training_and_test_samples_have_one_form() -> None:
    assert halves(PIXELS, PIXELS) == [] and halves(PIXELS / 255, PIXELS.astype(np.float32) / 255) == []
    assert "differ in scale" in halves(X + 0.5, (X + 0.5) * 1000)[0]
    assert halves(X, X, (1.5, 2.5, -3.5, 4.5), (1.5, -2.5, 3.5, 4.5)) == []
    [note] = halves(X, X, (1.5, 2.5, -3.5, 4.5), (1500.0, -2500.0, 3500.0, 4500.0))
    assert note == "y and y_test differ in scale: the median of their absolute values is 2.5 in y and 2.5e+03 in y_test"
    for x, x_test, message in [
        (X, X[:, :2], r"x has rows of shape \(3,\), x_test of shape \(2,\)"),
        (PIXELS.astype(np.uint8), PIXELS / 255, r"x holds pixels 0..255 \(uint8\), x_test numbers \(float64\)"),
        (PIXELS, PIXELS.astype(np.uint8), r"x holds numbers \(float64\), x_test pixels"),
        (PIXELS.astype(int), PIXELS, r"x holds integers \(int64\), x_test numbers"),
        (PIXELS, PIXELS / 255, "x holds whole numbers of 0..255, x_test numbers of 0..1; .*x / 255"),
        (PIXELS / 255, PIXELS, "x_test holds whole numbers of 0..255, x numbers of 0..1"),
    ]:
        with pytest.raises(BadSamples, match=message):
            halves(x, x_test)
    with pytest.raises(BadSamples, match=r"y has rows of shape \(1,\), y_test of shape \(\)"):
        halves(X, X, y_test=(0.0, 1.0))
