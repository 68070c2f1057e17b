"""Layouts of outputs and labels that do not count, against PyTorch's own functions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng
from fl_sim.errors import ConfigError
from fl_sim.learning.measures import accuracy, class_axis_of, cross_entropy, squared_error

PLACES = [(), (6,), (4, 5)]
"""Labels of a sample: one, a sequence, a picture."""
BATCH, CLASSES = 7, 3


def drawn(places: tuple[int, ...], ignored: int | None = None, classes: int = CLASSES) -> tuple[torch.Tensor, Any]:
    """Outputs (B, K, ...) in PyTorch's layout, and labels of which some are ``ignored``: all of the first sample."""
    with rng.keyed_globals(1):
        outputs = torch.randn(BATCH, classes, *places, dtype=torch.float64)
        y = torch.randint(classes, (BATCH, *places))
        if ignored is not None:
            y = torch.where(torch.rand(y.shape) < 0.3, ignored, y)
            y[0] = ignored
    return outputs, y


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("ignored", [None, -100, 255, 2])
def test_both_layouts_are_pytorchs_cross_entropy(places: tuple[int, ...], ignored: int | None) -> None:
    outputs, y = drawn(places, ignored)
    outputs.requires_grad_()
    of_labels = F.cross_entropy(outputs, y, reduction="none", ignore_index=-100 if ignored is None else ignored)
    hits = (outputs.argmax(1) == y).double()
    counts = torch.ones_like(hits) if ignored is None else (y != ignored).double()
    per_sample = counts.reshape(BATCH, -1).sum(1).clamp(min=1)
    for last in (False, True):
        given = outputs.movedim(1, -1) if last else outputs
        losses = cross_entropy(given, {"y": y}, ignore_index=ignored)
        torch.testing.assert_close(losses, (of_labels * counts).reshape(BATCH, -1).sum(1) / per_sample)
        means = accuracy(given, {"y": y}, ignore_index=ignored)
        torch.testing.assert_close(means, (hits * counts).reshape(BATCH, -1).sum(1) / per_sample)
        if ignored is not None:
            assert losses[0] == means[0] == 0
            assert not torch.autograd.grad(losses[0], outputs, retain_graph=True)[0].any()


def test_sizes_that_coincide_need_a_class_axis() -> None:
    outputs, y = drawn((3,))  # (7, 3, 3) and (7, 3)
    for function in (cross_entropy, accuracy):
        with pytest.raises(
            ConfigError, match=r"task.class_axis = 'auto': outputs have shape \(7, 3, 3\), y has \(7, 3\)"
        ):
            function(outputs, {"y": y})
        for axis, given in ((1, outputs), (-1, outputs.movedim(1, -1))):
            chosen: Any = {"class_axis": axis}
            assert torch.equal(function(given, {"y": y}, **chosen), function(outputs, {"y": y}, class_axis=1))


@pytest.mark.parametrize(
    "outputs, y, axis, found",
    [
        ((7, 3, 8, 8), (7, 8, 8), "auto", 1),
        ((7, 8, 8, 3), (7, 8, 8), "auto", -1),
        ((7, 8, 8, 8), (7, 8, 8), 1, 1),
        ((7, 8, 8, 8), (7, 8, 8), -1, -1),
        ((7, 3, 8, 8), (7, 8, 8), -1, None),
        ((7, 8, 8, 3), (7, 8, 8), 1, None),
        ((7, 3), (7, 1), "auto", None),
        ((7, 3), (7, 3), "auto", None),
        ((7,), (7,), "auto", None),
        ((7, 3, 5), (7,), "auto", None),
    ],
)
def test_the_axis_of_the_classes_follows_from_the_shapes(outputs: Any, y: Any, axis: Any, found: int | None) -> None:
    if found is None:
        with pytest.raises(ConfigError, match=r"y must have outputs' shape without the axis of the classes"):
            class_axis_of(torch.zeros(outputs), torch.zeros(y), axis)
    else:
        assert class_axis_of(torch.zeros(outputs), torch.zeros(y), axis) == found


@pytest.mark.parametrize("outputs, y", [((7, 4, 5), (7, 5, 4)), ((7, 2), (7, 3)), ((7, 1), (7, 7)), ((6, 2), (4, 3))])
def test_squared_error_refuses_what_it_would_compare_in_the_wrong_order(outputs: Any, y: Any) -> None:
    with pytest.raises(ConfigError, match="squared_error compares equal shapes"):
        squared_error(torch.zeros(outputs), {"y": torch.zeros(y)})


@pytest.mark.parametrize(
    "outputs, y", [((7, 1), (7,)), ((7,), (7, 1)), ((7, 20), (7, 4, 5)), ((7, 1, 4, 5), (7, 4, 5))]
)
def test_squared_error_takes_flat_numbers_and_axes_of_one(outputs: Any, y: Any) -> None:
    with rng.keyed_globals(2):
        o, target = torch.randn(outputs, dtype=torch.float64), torch.randn(y, dtype=torch.float64)
    expected = (o.reshape(7, -1) - target.reshape(7, -1)).square().mean(1)
    torch.testing.assert_close(squared_error(o, {"y": target}), expected)


class Area:
    """What torchmetrics' objects are."""

    def reset(self) -> None: ...
    def update(self, outputs: Tensor, targets: Tensor) -> None: ...
    def compute(self) -> None: ...
    def __call__(self, outputs: Tensor, targets: Tensor) -> None: ...


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"loss": "cross_entropy"},
            r"^from_arrays: loss = 'cross_entropy': a str, no function; .*\.cross_entropy$",
        ),
        ({"loss": nn.CrossEntropyLoss}, "loss = <class .*: a class, no function"),
        ({"metrics": [accuracy]}, r"metrics = \[<function accuracy.*: a list, no dict; .* metrics=\{'hits': f\}"),
        ({"metrics": accuracy}, "metrics = <function accuracy.*: a function, no dict"),
        ({"metrics": {"f1": "f1"}}, r"metrics\['f1'\] = 'f1': a str, no function; .* such as fl_sim.accuracy"),
        ({"metrics": {"f1": Area}}, r"metrics\['f1'\] = <class .*Area'>: "),
        (
            {"metrics": {"f1": Area()}},
            r"an object with reset, update and compute.* in set_metrics=\{'f1': \.\.\.\}",
        ),
        ({"metrics": {3: accuracy}}, "metrics: the name 3 must be text"),
    ],
)
def test_what_is_no_function_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays([[1.0], [2.0]], [0, 1], x_test=[[1.0]], y_test=[0], **given)
