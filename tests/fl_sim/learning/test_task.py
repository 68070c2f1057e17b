"""Losses, metrics and transforms against numbers computed by hand; tasks from a user's arrays."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.measures import accuracy, cross_entropy, squared_error
from fl_sim.learning.transform import Transform


def test_losses_and_metrics_give_one_number_a_sample() -> None:
    outputs, batch = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), {"y": torch.tensor([0, 1])}
    # softmax (1/2, 1/2) -> log 2; softmax (3/4, 1/4) -> log 4
    torch.testing.assert_close(cross_entropy(outputs, batch), torch.tensor([math.log(2), math.log(4)]))
    assert accuracy(outputs, batch).tolist() == [1.0, 0.0]
    # ((1 - 0)^2 + (1 - 3)^2) / 2 = 2.5
    assert squared_error(torch.ones(1, 2), {"y": torch.tensor([[0.0, 3.0]])}).tolist() == [2.5]
    assert squared_error(torch.ones(2, 1), {"y": torch.tensor([0.0, 3.0])}).tolist() == [
        1.0,
        4.0,
    ]  # y without an axis of its own


@pytest.mark.parametrize("samples, classes", [(32, 10), (33, 10), (200, 15), (200, 16)])
def test_cross_entropy_is_pytorchs_whichever_way_its_rows_lie(samples: int, classes: int) -> None:
    with rng.keyed_globals(0):
        outputs, y = (
            torch.randn(samples, classes, dtype=torch.float64, requires_grad=True),
            torch.randint(classes, (samples,)),
        )
    ours, expected = cross_entropy(outputs, {"y": y}), F.cross_entropy(outputs, y, reduction="none")
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
    slopes = [torch.autograd.grad(losses.square().sum(), outputs, create_graph=True)[0] for losses in (ours, expected)]
    curves = [torch.autograd.grad(slope.square().sum(), outputs)[0] for slope in slopes]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-12, atol=1e-14)


def test_a_transform_scales_then_standardises() -> None:
    batch = {"x": torch.tensor([[0.0, 255.0]]), "y": torch.tensor([1])}
    done = Transform(scale=1 / 255, mean=torch.tensor(0.5), std=torch.tensor(0.25))(batch, None)
    torch.testing.assert_close(done["x"], torch.tensor([[-2.0, 2.0]]))  # (0 - .5) / .25, (1 - .5) / .25
    assert done["y"] is batch["y"] and batch["x"].tolist() == [[0.0, 255.0]]


def windows(picture: Tensor) -> list[Tensor]:
    """All possible results of augmenting a picture: 9 x 9 crops, plain and flipped."""
    padded = F.pad(picture[None], (4, 4, 4, 4), mode="reflect")[0]
    size = picture.shape[-1]
    crops = [padded[:, i : i + size, j : j + size] for i in range(9) for j in range(9)]
    return crops + [crop.flip(-1) for crop in crops]


def test_augmented_pictures_are_crops_and_flips_drawn_by_place() -> None:
    x, words, augment = torch.rand(40, 2, 12, 12), rng.words(3), Transform(augment=True)
    done = augment({"x": x}, words)["x"]
    found = [[i for i, w in enumerate(windows(x[b])) if torch.equal(w, done[b])] for b in range(40)]
    assert all(len(f) == 1 for f in found)
    assert len({f[0] for f in found}) > 20 and any(f[0] < 81 for f in found) and any(f[0] >= 81 for f in found)
    assert torch.equal(
        augment({"x": x[:7]}, words)["x"], done[:7]
    )  # Padding a batch does not change its other samples.
    assert augment({"x": x}, None)["x"] is x
    keys = rng.words(rng.keys(0, 3))
    together = torch.vmap(lambda p, w: augment({"x": p}, w)["x"])(x[:12].reshape(3, 4, 2, 12, 12), keys)
    assert torch.equal(together[1], augment({"x": x[4:8]}, keys[1])["x"])


def test_classes_and_pictures_from_arrays() -> None:
    x, y = np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2), np.arange(10, dtype=np.int32) % 3
    task = from_arrays(x, y, clients=list("aabbbbbbcc"), test_share=0.3)
    assert (task.num_train, len(task.test["y"]), task.outputs, task.inputs) == (7, 3, 3, (1, 2, 2))
    assert task.loss is cross_entropy and set(task.metrics) == {"accuracy"} and task.train["y"].dtype == torch.int64
    assert task.labels is not None and task.labels.tolist() == task.train["y"].tolist()
    torch.testing.assert_close(task.transform({"x": torch.tensor([255.0])}, None)["x"], torch.ones(1))
    rows = torch.cat([task.train["x"], task.test["x"]])[:, 0, 0, 0].tolist()
    assert sorted(rows) == list(range(0, 40, 4)) and rows != sorted(
        rows
    )  # Each sample occurs once; the test part is random.
    # Row i of x starts with 4 i; clients that still have samples are numbered in the order of their ids.
    owners = [list("aabbbbbbcc")[r // 4] for r in rows[:7]]
    assert task.clients is not None and [sorted(set(owners)).index(o) for o in owners] == task.clients.tolist()


def test_regression_from_arrays() -> None:
    task = from_arrays(torch.rand(8, 3), torch.rand(8, 2), x_test=torch.rand(2, 3), y_test=torch.rand(2, 2))
    assert (task.outputs, task.loss, dict(task.metrics), task.labels, task.num_train) == (2, squared_error, {}, None, 8)
    assert isinstance(task.transform, Transform) and task.transform.scale == 1.0


def test_a_class_that_only_the_test_set_has_still_counts() -> None:
    assert from_arrays(np.zeros((2, 1)), np.array([0, 1]), x_test=np.zeros((1, 1)), y_test=np.array([4])).outputs == 5


def test_a_users_own_loss_and_metrics_win() -> None:
    task = from_arrays(
        np.zeros((4, 1)), np.zeros(4, int), loss=squared_error, metrics={"mine": accuracy}, outputs=7, name="own"
    )
    assert (task.loss, set(task.metrics), task.outputs, task.name) == (squared_error, {"mine"}, 7, "own")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"y": np.zeros(4)}, "y has 4 rows, x has 5"),
        ({"clients": [1, 2]}, "clients has 2 rows, x has 5"),
        ({"x": np.array([1.0, np.nan, 0, 0, 0])[:, None]}, "x holds NaN in row 1"),
        ({"y": np.array([1.0, np.inf, 0, 0, 0])}, "y holds infinity in row 1"),
        ({"x_test": np.zeros((2, 1))}, "one is missing"),
        ({"x_test": np.zeros((2, 1)), "y_test": np.zeros(3)}, "y_test has 3 rows, x_test has 2"),
        ({"x_test": np.full((2, 1), np.nan), "y_test": np.zeros(2)}, "x_test holds NaN in row 0"),
    ],
)
def test_bad_arrays_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"x": np.zeros((5, 1)), "y": np.zeros(5), **changed})


def test_a_subset_keeps_the_order_of_its_indices_and_the_ids_of_clients() -> None:
    task = from_arrays(np.arange(6.0)[:, None], np.arange(6) % 3, clients=[0, 0, 1, 1, 2, 2], test_share=0.0)
    some = task.subset(np.array([5, 2, 4]))
    assert some.train["x"].flatten().tolist() == [5, 2, 4] and some.num_train == 3
    assert some.labels is not None and some.labels.tolist() == [2, 2, 1]
    assert some.clients is not None and some.clients.tolist() == [2, 1, 2]
    assert some.num_clients == 3 and task.subset(np.array([0])).num_clients == 3
    assert torch.equal(some.test["x"], task.test["x"]) and some.outputs == 3


@pytest.mark.parametrize("label", [2**63, -(10**30)])
def test_a_label_that_no_label_can_be_is_not_ignored(label: int) -> None:
    task = replace(from_arrays(np.zeros((4, 2)), [0, 1, 0, 1]), ignore_index=label)
    with pytest.raises(ConfigError, match=rf"task\.ignore_index = {label}: no label is that number"):
        task.settled()
