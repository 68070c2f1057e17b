"""Building a task from a user's arrays.

Legend: N training samples, M test samples, B batch size.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.learning.measures import (
    ClassAxis,
    SampleFunction,
    accuracy,
    check_functions,
    cross_entropy,
    squared_error,
)
from fl_sim.learning.samples.client_ids import numbered
from fl_sim.learning.samples.labels import targets
from fl_sim.learning.samples.sample_checks import BadSamples, check_halves, check_lengths, numbers_of
from fl_sim.learning.samples.sample_cures import missing_words, one_class
from fl_sim.learning.samples.sample_options import check_axis, check_columns, row_remarks, share, whole
from fl_sim.learning.task import Task
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
    """A task from arrays, tensors, lists or tables. Words and integers in ``y`` are classes, floats numbers to predict.

    All rows are checked. What was decided about them is printed once on stderr, and in ``Task.notes`` and the log. The
    task has copies, which a later write into the arrays does not change; files mapped into memory are not copied.

    Parameters
    ----------
    x : (N, ...) finite numbers
        Inputs. uint8 values are scaled to [0, 1]; booleans become 0 and 1; other integers reach the model as integers,
        as an embedding needs them. Object arrays must hold numbers only.
    y : (N,) classes, (N, ...) one for each place of a sequence or picture, or (N, ...) floats
        Targets. Integers 0..K-1 stay as they are, also where some of them do not occur. Words, -1/+1, 1..K, and
        integers of which fewer than half of 0..max occur, are encoded in ascending order (``Task.class_names``), unless
        ``outputs`` or ``loss`` is given. A single stray integer, one-hot rows, and 0.0/1.0 as floats are refused.
    clients : (N,) of any type that sorts: numbers, text, dates (default: none)
        Id of the natural client that each sample belongs to. Clients are numbered in the order of their sorted ids,
        which are kept as ``Task.client_names``. A client whose samples are all in the test share keeps its number.
    x_test, y_test : (M, ...) (default: ``test_share`` of the samples, 0 to below 1, chosen at random by a fixed key)
        Central test set, in the form of ``x`` and ``y``: shape, type, scale, labels.
    loss : ``(outputs, batch) -> (B,)`` (default: cross-entropy in classification, squared error in regression)
        The loss of each sample. With a loss of yours, numbers in ``y`` reach it unchanged.
    metrics : dict of functions like ``loss``, reported as means (default: accuracy in classification, else none)
    class_axis, ignore_index : "auto", 1 or -1; int (default: "auto"; -100 where an integer ``y`` holds it, else none)
        Those of ``Task``: the axis of the classes where samples have several labels, and the label that never counts.
    outputs : int (default: largest class + 1 in classification, numbers in one target in regression)
        Size of the model's output.

    Raises
    ------
    ValueError
        That names the argument, the row (from 0) and the cure: for lengths that differ, NaN and infinity, text among
        features, missing labels and ids, labels that could mean two things, and test samples of another form.
    """
    try:
        check_axis(class_axis)
        check_functions(loss, metrics)
        outputs, ignore_index = whole("outputs", outputs, least=1), whole("ignore_index", ignore_index)
        found = _read(x, y, clients, x_test, y_test, outputs, test_share, loss is not None, ignore_index)
    except (BadSamples, ConfigError) as error:
        raise ValueError(f"from_arrays: {error}") from None
    if not isinstance(name, str):
        raise ValueError(f"from_arrays: name = {name!r}: must be text")
    return _task(found, loss, metrics, outputs, class_axis, name)


def _outputs(classes: bool, ignored: int | None, y: Tensor, y_test: Tensor) -> int:
    """Numbers in one target; of classes the largest label + 1, whatever the ignored label is."""
    if not classes:
        return int(y[0].numel())
    labels = torch.cat([y.flatten(), y_test.flatten()])
    return int((labels if ignored is None else labels[labels != ignored]).max()) + 1


@cache
def say(note: str) -> None:
    """Print a note on stderr, once."""
    print(f"note: {note}", file=sys.stderr)


def kept_apart(values: Tensor, given: object) -> Tensor:
    """``values`` in memory of its own, so that a later write into what the user gave does not change the task.

    A file that is mapped into memory (``np.load(..., mmap_mode="r")``) is not copied.
    """
    if not hasattr(given, "__array__"):
        return values
    if isinstance(given, Tensor):  # compared as tensors, because NumPy lacks types such as bfloat16
        same = given.device.type == "cpu" and values.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()
        return values.clone() if same else values
    theirs = np.asarray(given)
    base: object = theirs
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    shared = not isinstance(base, np.memmap) and np.may_share_memory(values.numpy(), theirs)
    return values.clone() if shared else values


class _Read(NamedTuple):
    """A user's arrays, checked, in the form of a task."""

    train: Tree
    test: Tree
    clients: np.ndarray | None
    client_names: np.ndarray | None
    class_names: np.ndarray | None
    ignored: int | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> bool:
        """Whether targets are classes, not numbers to predict."""
        return not (self.train["y"].is_floating_point() or self.train["y"].is_complex())


def _read(
    x: object,
    y: object,
    clients: object,
    x_test: object,
    y_test: object,
    outputs: int | None,
    test_share: float,
    own_loss: bool,
    ignored: int | None,
) -> _Read:
    """Check all arrays, and split off a test share where no test samples are passed. Raises BadSamples."""
    if (x_test is None) != (y_test is None):
        raise BadSamples("of x_test and y_test one is missing; give both or neither")
    test_share = share("test_share", test_share)
    check_columns(x, x_test)
    found = targets(y, y_test, outputs=outputs, own_loss=own_loss, ignored=ignored)
    train: Tree = {"x": numbers_of("x", x), "y": found.y}
    owners, names = (None, None) if clients is None else numbered(clients)
    check_lengths({k: len(v) for k, v in {**train, "clients": owners}.items() if v is not None})
    decided = (*found.notes, *(() if own_loss else one_class(found.y, found.ignored)))
    if owners is not None and names is not None:
        decided = (*decided, *missing_words("clients", owners, names))
    if found.y_test is None:
        train, test, owners = _split(train, owners, test_share)
        notes = (*decided, *row_remarks(x, y=y, clients=clients))
    else:
        test = {"x": numbers_of("x_test", x_test), "y": found.y_test}
        check_lengths({"x_test": len(test["x"]), "y_test": len(test["y"])})
        remarks = (*row_remarks(x, y=y, clients=clients), *row_remarks(x_test, y_test=y_test))
        notes = (*decided, *remarks, *check_halves(train, test))
    given = {"x": x, "y": y}, {"x": x_test, "y": y_test}
    train, test = (
        {k: kept_apart(v, own[k]) for k, v in part.items()} for part, own in zip((train, test), given, strict=True)
    )
    for note in notes:
        say(note)
    return _Read(train, test, owners, names, found.names, found.ignored, notes)


def _task(
    found: _Read,
    loss: SampleFunction | None,
    metrics: Mapping[str, SampleFunction] | None,
    outputs: int | None,
    class_axis: ClassAxis,
    name: str,
) -> Task:
    train, test, classes = found.train, found.test, found.classes
    return Task(
        name=name,
        train=train,
        test=test,
        outputs=outputs or _outputs(classes, found.ignored, train["y"], test["y"]),
        loss=loss or (cross_entropy if classes else squared_error),
        metrics={"accuracy": accuracy} if metrics is None and classes else dict(metrics or {}),
        transform=Transform(scale=1 / 255 if train["x"].dtype == torch.uint8 else 1.0),
        labels=train["y"].numpy() if classes and train["y"].ndim == 1 else None,
        clients=found.clients,
        client_names=found.client_names,
        class_names=found.class_names,
        notes=found.notes,
        class_axis=class_axis,
        ignore_index=found.ignored,
    )


def _split(tree: Tree, owners: np.ndarray | None, test_share: float) -> tuple[Tree, Tree, np.ndarray | None]:
    """Training samples, test samples, and the natural clients of the training samples, which keep their numbers."""
    order = torch.from_numpy(rng.permutation(rng.key(0, "test-share"), len(tree["y"])))
    held, kept = order[: int(test_share * len(order))], order[int(test_share * len(order)) :].sort().values
    owners = None if owners is None else owners[kept.numpy()]
    return {k: v[kept] for k, v in tree.items()}, {k: v[held] for k, v in tree.items()}, owners
