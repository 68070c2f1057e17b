"""Targets: what becomes a class, what stays a number, and what is refused because it could mean two things."""

from typing import Any

import numpy as np
import pytest

from fl_sim.learning.samples.labels import Targets, targets
from fl_sim.learning.samples.sample_checks import BadSamples

TWO = np.arange(40) % 2


def of(y: object, y_test: object = None, **options: Any) -> Targets:
    """The targets with defaults for all options."""
    return targets(y, y_test, **{"outputs": None, "own_loss": False, "ignored": None, **options})


@pytest.mark.parametrize(
    "y, names",
    [
        (np.where(TWO, "yes", "no"), ["no", "yes"]),
        (np.where(TWO, "yes", "no").astype(object), ["no", "yes"]),
        (np.where(TWO, b"yes", b"no"), ["no", "yes"]),
        (2 * TWO - 1, [-1, 1]),
        (TWO + 1, [1, 2]),
        (990 * TWO + 10, [10, 1000]),
        ((2 * TWO - 1).astype(object), [-1, 1]),
        ([["no", "yes"][i] for i in TWO], ["no", "yes"]),
    ],
)
def test_two_classes_under_any_names_become_0_and_1_and_keep_their_names(y: object, names: list[object]) -> None:
    found = of(y)
    assert found.y.tolist() == TWO.tolist() and found.names is not None and found.names.tolist() == names
    assert f"{names[0]!r} -> 0, {names[1]!r} -> 1" in found.notes[0]


@pytest.mark.parametrize("y", [TWO, TWO.astype(bool), TWO.astype(np.uint8), np.array([0, 1, 4]), np.zeros(4, int)])
def test_classes_from_0_stay_as_they_are(y: np.ndarray) -> None:
    found = of(y)
    assert found.y.tolist() == y.astype(int).tolist() and found.names is None
    assert bool(found.notes) == (y.max() == 4)  # classes 2 and 3 do not occur: said, not changed


def test_words_that_spell_integers_are_in_the_order_of_the_integers() -> None:
    found = of([str(i % 12) for i in range(60)])
    assert found.y.tolist() == [i % 12 for i in range(60)]


def test_labels_of_sequences_are_numbers_of_a_vocabulary_and_never_renumbered() -> None:
    y = np.array([[7, 900], [900, 12]])
    assert of(y).y.tolist() == y.tolist()
    tags = of([["B", "O"], ["O", "I"]])
    assert tags.y.tolist() == [[0, 2], [2, 1]] and tags.names is not None and tags.names.tolist() == ["B", "I", "O"]


def test_given_outputs_say_that_gaps_are_meant() -> None:
    y = np.array([217, 0, 571] * 5)
    assert of(y, outputs=1000).y.tolist() == y.tolist() and of(y).names is not None
    assert of(np.arange(1, 5), outputs=4).y.tolist() == [0, 1, 2, 3]
    assert of(np.array([1, 3]), outputs=3).y.tolist() == [0, 2]  # 2 does not occur, but is one of 1..3


def test_a_loss_of_the_users_gets_numbers_unchanged() -> None:
    for y in (2 * TWO - 1, 2.0 * TWO - 1, np.eye(2)[TWO], TWO + 1.0):
        assert of(y, own_loss=True).y.tolist() == y.tolist()


def test_an_ignored_label_is_left_out_of_checks_and_codes() -> None:
    y = np.where(np.arange(40) == 35, -100, 990 * TWO + 10)
    found = of(y, ignored=-100)
    assert found.y.tolist() == [-100 if i == 35 else int(TWO[i]) for i in range(40)]
    assert found.names is not None and found.names.tolist() == [10, 1000]
    stays = np.where(np.arange(40) == 35, 255, TWO)
    assert of(stays, ignored=255).y.tolist() == stays.tolist() and of(stays, ignored=255).names is None
    usual = of(np.where(np.arange(40) == 35, -100, TWO))
    assert (usual.ignored, usual.names) == (-100, None) and "y holds -100, which counts neither" in usual.notes[0]
    with pytest.raises(BadSamples, match="ignore_index = -1: every label of y is ignored"):
        of(-np.ones(3, int), ignored=-1)


def stray(value: object, row: int = 35) -> list[object]:
    """0, 1, 0, 1 ... with one other value."""
    return [value if i == row else int(TWO[i]) for i in range(40)]


@pytest.mark.parametrize(
    "y, message",
    [
        (np.array(stray(-1)), "y holds -1 in row 35 among 2 classes 0..1; .* ignore_index=-1 .*'float32'"),
        (np.array(stray(255)), "y holds 255 in row 35 among 2 classes 0..1; .* ignore_index=255"),
        (np.where(np.arange(40) % 5 == 3, -9, TWO), "y holds -9 in row 3 and 7 more .* ignore_index=-9"),
        (np.where(TWO, "a", None), "y has no label in row 0"),
        (["a", "b", float("nan")], r"y has no label in row 2 \(nan\)"),
        (["a"] * 7 + [3, "b"], "y mixes text and numbers: 'a' in row 0, 3 in row 7"),
        (stray(None), "y holds a missing value .None. in row 35"),
        (stray(float("nan")), "y holds NaN in row 35"),
        ([f"name {i}" for i in range(40)], "40 different values in 40 rows"),
        (np.arange(40) * 1000 + 7, "40 different values in 40 rows.*astype.'float32'"),
        (1.0 * TWO, r"y holds only 0.0 and 1.0, as floats.*y.astype\(int\).*loss=fl_sim.squared_error"),
        (2.0 * TWO - 1, "y holds only -1.0 and 1.0, as floats"),
        (np.eye(3)[TWO], r"one-hot classes; pass y.argmax\(1\)"),
        (np.eye(3, dtype=int)[TWO], r"one-hot classes; pass y.argmax\(1\)"),
        (np.array(["2024-01-01"] * 4, "M8[D]"), "y holds dates"),
    ],
)
def test_what_could_mean_two_things_is_refused_with_row_and_cure(y: object, message: str) -> None:
    with pytest.raises(BadSamples, match=message):
        of(y)


@pytest.mark.parametrize(
    "y, y_test, message",
    [
        (
            np.where(TWO, "yes", "no"),
            ["no", "Yes"],
            "y_test holds 'Yes' in row 1, a class that y lacks",
        ),
        (np.where(TWO, "yes", "no"), [0, 1], "y holds text, y_test does not"),
        (TWO, ["0", "1"], "y_test holds text, y numbers"),
        (TWO, [0.5, 1.0], "y holds integers, which are classes, and y_test fractions"),
        (990 * TWO + 10, [10, 99], "y_test holds 99 in row 1, a class that y lacks"),
        (TWO, [0, 1, 1, -1], "y_test holds -1 in row 3"),
    ],
)
def test_both_halves_have_the_same_labels(y: object, y_test: object, message: str) -> None:
    with pytest.raises(BadSamples, match=message):
        of(y, y_test)


def test_halves_of_integers_and_whole_floats_agree() -> None:
    found = of(TWO, [1.0, 0.0])
    assert found.y_test is not None and found.y_test.tolist() == [1, 0]
    added = of(TWO, [2])
    assert added.y_test is not None and added.y_test.tolist() == [2] and "y_test holds class 2" in added.notes[0]
    with pytest.raises(BadSamples, match="outputs = 2: y holds 3 classes"):
        of(["a", "b", "c"], outputs=2)
    with pytest.raises(BadSamples, match="y holds 2 in row 2 and 4 more among 2 classes 0..1, outputs = 2"):
        of(np.arange(15) % 3, outputs=2)


def test_whole_numbers_as_floats_are_a_regression_and_said_to_be_one() -> None:
    found = of(np.arange(40) % 5 + 1.0)
    assert found.y.is_floating_point() and "for classes pass y.astype(int)" in found.notes[0]
    several = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert "a regression by squared error, unless you pass a loss" in of(several).notes[0]
    assert "each row of y sums to 1" in of([[0.25, 0.75], [1.0, 0.0]]).notes[0]
    assert of(several, own_loss=True).notes == () == of([[0.25, 0.7]]).notes == of([[-1.0, 2.0]]).notes
    assert of(np.arange(40) / 7).notes == () == of(np.zeros(5)).notes
