"""Checks of a whole task before a run, wherever it comes from: a user's ``Task``, a function of a user's, a file.

Legend: N samples, M natural clients.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.measures import class_axis_of, cross_entropy
from fl_sim.learning.samples.client_ids import numbered
from fl_sim.learning.samples.sample_checks import WIDER, BadSamples, check_finite, check_halves, check_lengths, raw
from fl_sim.learning.samples.sample_cures import missing_words
from fl_sim.learning.samples.sample_options import check_axis, names, whole
from fl_sim.learning.task import Task
from fl_sim.tree import Tree


def checked(task: Task) -> Task:
    """The task with all of its samples checked, and its natural clients numbered from 0.

    Raises
    ------
    ValueError
        That names the task, the row (from 0) and the cure: for lengths that differ, NaN and infinity, classes that the
        model has no output for, halves of different forms, and clients without names.
    """
    try:
        _check_tree("train", task.train)
        task = _typed(task)
        if task.test and len(task.test.get("y", ())):
            _check_tree("test", task.test)
            if missing := sorted(set(task.train) - set(task.test)):
                raise BadSamples(f"test lacks {', '.join(missing)}, which train has; give both the same keys")
            suspicious = check_halves(task.train, task.test, shapes=False)
            if new := tuple(note for note in suspicious if note not in task.notes):
                task = replace(task, notes=(*task.notes, *new))
        task = _stored(task)
        rows = {"train": task.num_train}
        rows |= {k: len(v) for k, v in (("labels", task.labels), ("clients", task.clients)) if v is not None}
        check_lengths(rows)
        check_classes(task, task.outputs)
        return task if task.clients is None else _numbered(task)
    except BadSamples as error:
        raise ValueError(f"task {task.name}: {error}") from None


def check_classes(task: Task, outputs: int) -> None:
    """Raise BadSamples for a class that is none of 0..outputs-1, if the loss is this project's cross-entropy."""
    if not _has_classes(task):
        return
    for half, samples in (("train", task.train), ("test", task.test)):
        y = samples.get("y")
        if y is None or not y.numel() or y.is_floating_point() or y.is_complex():
            continue
        low, high = (int(v) for v in torch.aminmax(y))
        if low >= 0 and high < outputs:
            continue
        bad = (y < 0) | (y >= outputs)
        if task.ignore_index is not None:
            bad &= y != task.ignore_index
        if not bool(bad.any()):
            continue
        row = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
        label = int(y[row][bad[row]].flatten()[0])
        problem = f"{half} y holds {label} in row {row}, which is no class of 0..{outputs - 1}"
        raise BadSamples(f"{problem}; number the classes from 0; a label that means none is ignore_index")


def _has_classes(task: Task) -> bool:
    """Whether the loss is this project's cross-entropy, or a partial of it, which knows the layout of outputs."""
    return getattr(task.loss, "func", task.loss) is cross_entropy


def check_range(task: Task, dtype: torch.dtype) -> None:
    """Raise ConfigError for a number of a task that is finite as it is stored, and infinite as ``dtype``."""
    limit = torch.finfo(dtype).max
    for half, samples in (("train", task.train), ("test", task.test)):
        for key, values in samples.items():
            if not values.is_floating_point() or torch.finfo(values.dtype).max <= limit or not values.numel():
                continue
            if max(abs(float(v)) for v in torch.aminmax(values)) > limit:
                row = int((values.abs() > limit).reshape(len(values), -1).any(1).nonzero()[0])
                what = f"task {task.name}: {half} {key} holds a number above {limit:.3g} in row {row}"
                raise ConfigError(f"dtype = {str(dtype).removeprefix('torch.')!r}: {what}; scale it, or use float64")


def check_outputs(task: Task, outputs: object, y: Tensor) -> None:
    """Raise ConfigError for a class of any row that the model has no output for; ``outputs`` (B, ...) are for y."""
    if not _has_classes(task) or not isinstance(outputs, Tensor) or y.is_floating_point() or outputs.ndim < 2:
        return
    axis = 1 if outputs.ndim == 2 else class_axis_of(outputs, y, task.class_axis)
    try:
        check_classes(task, outputs.shape[axis])
    except BadSamples as error:
        raise ConfigError(f"{error}; the model has {outputs.shape[axis]} outputs") from None


def _check_tree(half: str, tree: Tree) -> None:
    """One half: x and y are there, of one length, and finite."""
    if missing := [key for key in ("x", "y") if key not in tree]:
        raise BadSamples(f"{half} lacks {' and '.join(missing)}; it must hold x and y")
    check_lengths({f"{half} {key}": len(tree[key]) for key in ("y", *(k for k in tree if k != "y"))})
    if not len(tree["y"]):
        raise BadSamples(f"{half} has no samples; give at least one")
    for key, values in tree.items():
        kind: type = type(values)
        if not issubclass(kind, Tensor):
            cure = "give tensors (torch.as_tensor), or build the task with from_arrays"
            raise BadSamples(f"{half} {key} is of type {kind.__name__}; {cure}")
        if values.is_nested or values.layout is not torch.strided or values.is_meta or values.is_quantized:
            raw(f"{half} {key}", values)  # raises, with the cure
        check_finite(f"{half} {key}", values)


def _typed(task: Task) -> Task:
    """The task whose sizes are ints and whose names are arrays; a task that has these is returned as it is."""
    check_axis(task.class_axis)
    outputs, ignored = whole("outputs", task.outputs, least=1), whole("ignore_index", task.ignore_index)
    if outputs is None:
        raise BadSamples("outputs = None: must be an integer of 1 or more")
    classes, clients, test = names(task.class_names), names(task.client_names), task.test or {}
    ours = (task.outputs, task.ignore_index, task.class_names, task.client_names)
    if all(a is b for a, b in zip(ours, (outputs, ignored, classes, clients), strict=True)) and task.test is not None:
        return task
    return replace(task, outputs=outputs, ignore_index=ignored, class_names=classes, client_names=clients, test=test)


def _stored(task: Task) -> Task:
    """The task in types that torch computes with: unsigned integers in wider types, classes as int64.

    Raises BadSamples where cross-entropy, which takes classes, is given floats.
    """
    halves = {"train": task.train, "test": task.test}
    for half, tree in halves.items():
        if not tree:
            continue
        y = tree["y"]
        if _has_classes(task) and (y.is_floating_point() or y.is_complex()):
            kind = f"{half} y holds {str(y.dtype).removeprefix('torch.')}, which are no classes"
            cure = "for classes give integers (y.long()), for numbers to predict loss=fl_sim.squared_error"
            raise BadSamples(f"{kind}, but the task's loss is cross_entropy; {cure}")
        kinds = {key: WIDER.get(v.dtype, v.dtype) for key, v in tree.items()}
        kinds["y"] = torch.int64 if _has_classes(task) else kinds["y"]
        for key, values in tree.items():
            if values.dtype == torch.uint64 and int(values.view(torch.int64).min()) < 0:
                raise BadSamples(f"{half} {key} holds integers of 2^63 or more; give them as float64")
        if any(kinds[key] != v.dtype for key, v in tree.items()):
            halves[half] = {key: v.to(kinds[key]) for key, v in tree.items()}
    if halves["train"] is task.train and halves["test"] is task.test:
        return task
    return replace(task, train=halves["train"], test=halves["test"])


def _numbered(task: Task) -> Task:
    """The task with clients 0..M-1: other ids are replaced by their places, and become the names."""
    assert task.clients is not None
    ids = np.asarray(task.clients).reshape(-1)
    if task.client_names is not None:
        if not (ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < len(task.client_names)):
            last = len(task.client_names) - 1
            raise BadSamples(f"clients must be places 0..{last} in client_names; they are {ids.min()}..{ids.max()}")
        return task
    if ids.dtype.kind in "iu" and ids.min() == 0 and ids.max() < len(ids) and np.bincount(ids).all():
        return task
    places, known = numbered(task.clients)
    notes = (*task.notes, *missing_words("clients", places, known))
    return replace(task, clients=places, client_names=known, notes=notes)
