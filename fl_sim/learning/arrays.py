"""Building a task from a user's arrays.

Legend: N training samples, M test samples, B batch size.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.learning.measures import IGNORED, ClassAxis, SampleFunction, accuracy, cross_entropy, squared_error
from fl_sim.learning.task import Task, holds
from fl_sim.learning.transform import Transform
from fl_sim.tree import Tree


def from_arrays(
    x: object,
    y: object,
    *,
    clients: object = None,
    x_test: object = None,
    y_test: object = None,
    loss: SampleFunction | None = None,
    metrics: Mapping[str, SampleFunction] | None = None,
    outputs: int | None = None,
    test_share: float = 0.2,
    class_axis: ClassAxis = "auto",
    ignore_index: int | None = None,
    name: str = "arrays",
) -> Task:
    """A task from arrays or tensors. Integer ``y`` means classification, float ``y`` regression.

    Parameters
    ----------
    x : (N, ...)
        Inputs; uint8 values are scaled to [0, 1].
    y : (N,) integer classes, one for each place of a sequence or picture (N, ...), or (N, ...) floats
        Targets.
    clients : (N,) of any type (default: none)
        Id of the natural client that each sample belongs to.
    x_test, y_test : (M, ...) (default: ``test_share`` of the samples, chosen at random by a fixed key)
        Central test set.
    loss : ``(outputs, batch) -> (B,)`` (default: cross-entropy in classification, squared error in regression)
        The loss of each sample.
    metrics : dict of functions like ``loss`` (default: accuracy in classification, else none)
        Reported as means over samples.
    class_axis, ignore_index : "auto", 1 or -1; int (default: "auto"; -100 where an integer ``y`` holds it, else none)
        Those of ``Task``: the axis of the classes where samples have several labels, and the label that never counts.
    outputs : int (default: largest class + 1 in classification, numbers in one target in regression)
        Size of the model's output.

    Raises
    ------
    ValueError
        If lengths differ, if only one of ``x_test`` and ``y_test`` is passed, and for NaN and infinity.
    """
    tree, test, owners = _checked(x, y, clients, x_test, y_test)
    classes = not tree["y"].is_floating_point()
    tree, test, owners = (tree, test, owners) if test else _split(tree, owners, test_share)
    ignore_index = IGNORED if ignore_index is None and holds(IGNORED, tree, test) else ignore_index
    return Task(
        name=name,
        train=tree,
        test=test,
        outputs=outputs or _outputs(ignore_index, tree["y"], test["y"]),
        loss=loss or (cross_entropy if classes else squared_error),
        metrics={"accuracy": accuracy} if metrics is None and classes else dict(metrics or {}),
        transform=Transform(scale=1 / 255 if tree["x"].dtype == torch.uint8 else 1.0),
        labels=tree["y"].numpy() if classes and tree["y"].ndim == 1 else None,
        clients=owners,
        class_axis=class_axis,
        ignore_index=ignore_index,
    )


def _outputs(ignore_index: int | None, y: Tensor, y_test: Tensor) -> int:
    """Numbers in one target; of integers the largest label + 1, whatever the ignored label is."""
    if y.is_floating_point():
        return int(y[0].numel())
    labels = torch.cat([y.flatten(), y_test.flatten()])
    labels = labels if ignore_index is None else labels[labels != ignore_index]
    if not len(labels):
        raise ValueError(f"from_arrays: ignore_index = {ignore_index}: every label of y is ignored; none is left")
    return int(labels.max()) + 1


def _checked(
    x: object, y: object, clients: object, x_test: object, y_test: object
) -> tuple[Tree, Tree, np.ndarray | None]:
    """The samples, the test samples ({} if none are passed), and the ids of natural clients, numbered from 0."""
    tree = {"x": torch.as_tensor(np.asarray(x)), "y": torch.as_tensor(np.asarray(y))}
    owners = None if clients is None else np.unique(np.asarray(clients), return_inverse=True)[1]
    for label, length in [("y", len(tree["y"])), ("clients", len(tree["x"]) if owners is None else len(owners))]:
        if length != len(tree["x"]):
            raise ValueError(f"from_arrays: {label} has {length} rows, x has {len(tree['x'])}; they must be equal")
    if (x_test is None) != (y_test is None):
        raise ValueError("from_arrays: of x_test and y_test one is missing; give both or neither")
    test = (
        {} if x_test is None else {"x": torch.as_tensor(np.asarray(x_test)), "y": torch.as_tensor(np.asarray(y_test))}
    )
    if test and len(test["x"]) != len(test["y"]):
        raise ValueError(
            f"from_arrays: y_test has {len(test['y'])} rows, x_test has {len(test['x'])}; they must be equal"
        )
    if any(v.is_floating_point() and not torch.isfinite(v).all() for v in [*tree.values(), *test.values()]):
        raise ValueError("from_arrays: x, y, x_test or y_test holds NaN or infinity; clean the data first")
    tree["y"] = tree["y"] if tree["y"].is_floating_point() else tree["y"].long()
    return tree, {k: v.to(tree["y"].dtype) if k == "y" else v for k, v in test.items()}, owners


def _split(tree: Tree, owners: np.ndarray | None, test_share: float) -> tuple[Tree, Tree, np.ndarray | None]:
    """Training samples, test samples, and the renumbered natural clients of the training samples."""
    order = torch.from_numpy(rng.permutation(rng.key(0, "test-share"), len(tree["y"])))
    held, kept = order[: int(test_share * len(order))], order[int(test_share * len(order)) :].sort().values
    owners = None if owners is None else np.unique(owners[kept.numpy()], return_inverse=True)[1]
    return {k: v[kept] for k, v in tree.items()}, {k: v[held] for k, v in tree.items()}, owners
