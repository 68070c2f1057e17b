"""What is said about samples besides the samples: numbers of any kind count, and what could be misread is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from fl_sim import from_arrays

pd = pytest.importorskip("pandas")
X, Y = np.random.default_rng(0).normal(size=(60, 3)).astype("f4"), np.arange(60) % 3
TABLE = pd.DataFrame(X, columns=["age", "height", "weight"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"outputs": "3"}, "outputs = '3': must be an integer of 1 or more"),
        ({"outputs": 3.0}, "outputs = 3.0: must be an integer"),
        ({"outputs": 0}, "outputs = 0: must be an integer of 1 or more"),
        ({"ignore_index": True}, "ignore_index = True: must be an integer"),
        ({"ignore_index": 2.5}, "ignore_index = 2.5: must be an integer"),
        ({"ignore_index": "unknown"}, "ignore_index = 'unknown': must be an integer"),
        ({"test_share": "0.2"}, "test_share = '0.2': must be at least 0 and below 1"),
        ({"test_share": None}, "test_share = None: must be at least 0"),
        ({"class_axis": "first"}, "class_axis = 'first': must be 'auto', 1 or -1"),
        ({"class_axis": 0}, "class_axis = 0: must be"),
    ],
)
def test_options_that_would_be_misread_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"from_arrays: {message}"):
        from_arrays(X, Y, **options)


def test_numbers_of_numpy_are_options_too() -> None:
    given: Any = {"outputs": np.int64(4), "ignore_index": np.int32(2), "test_share": np.float32(0.5)}
    task = from_arrays(X, Y, class_axis=np.int64(1), **given)  # type: ignore[arg-type]
    assert (task.outputs, task.ignore_index, task.num_train) == (4, 2, 30) and type(task.outputs) is int


def test_words_have_no_label_that_is_a_number_to_ignore() -> None:
    words = np.array(["0", "1", "255"])[Y]
    with pytest.raises(ValueError, match="ignore_index = 255: y holds text, .*pass integers, with -100"):
        from_arrays(X, words, ignore_index=255)
    assert from_arrays(X, words, ignore_index=-100).outputs == 3


def test_columns_of_both_halves_are_the_same_in_the_same_order() -> None:
    for other, message in [
        (TABLE[["height", "age", "weight"]], r"column 0 is 'age' in x, 'height' in x_test; pass x_test\[x.columns\]"),
        (TABLE.rename(columns={"weight": "mass"}), "column 2 is 'weight' in x, 'mass' in x_test; give both the same"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_arrays(TABLE, Y, x_test=other, y_test=Y)
    for x_test in (TABLE, X, pd.DataFrame(X)):  # the columns of a scaler's output have no names
        assert torch.equal(from_arrays(TABLE, Y, x_test=x_test, y_test=Y).test["x"], torch.from_numpy(X))


def test_rows_of_another_order_by_their_index_are_told() -> None:
    shuffled = TABLE.sample(frac=1.0, random_state=0)
    told = from_arrays(shuffled, pd.Series(Y), clients=pd.Series(Y)).notes
    assert [note.split(" has ")[0] for note in told] == ["the index of y", "the index of clients"]
    assert "pass y.loc[x.index]" in told[0]
    assert from_arrays(shuffled, pd.Series(Y)[shuffled.index]).notes == ()
    assert from_arrays(shuffled, Y, clients=pd.Series(Y, index=range(100, 160))).notes == ()
