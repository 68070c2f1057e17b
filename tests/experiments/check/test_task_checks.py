"""Each check of tasks detects the fault that it is made for, and names a file and a line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from experiments.check import task_checks
from fl_sim import Task, from_arrays
from fl_sim.learning.measures import cross_entropy
from fl_sim.tree import Tree

X = np.arange(20.0).reshape(10, 2)


def task_with(**changes: Any) -> Callable[[], Task]:
    """Builds a task with some fields replaced by wrong ones."""

    def make() -> Task:
        task = from_arrays(X, np.arange(10) % 2)
        for name, value in changes.items():
            object.__setattr__(task, name, value(task) if callable(value) and name != "loss" else value)
        return task

    return make


def random_task() -> Task:
    return from_arrays(np.frombuffer(os.urandom(160), np.uint8).reshape(80, 2).copy(), np.arange(80) % 2)


def nan_task() -> Task:
    task = from_arrays(X, np.arange(10) % 2)
    task.train["x"][0] = float("nan")
    return task


def entropy_by_hand(outputs: Tensor, batch: Tree) -> Tensor:
    """Right, but not for large outputs, of which the probability is rounded to 0."""
    return -outputs.softmax(1).gather(1, batch["y"][:, None])[:, 0].log()


def shifts_labels(outputs: Tensor, batch: Tree) -> Tensor:
    batch["y"] -= 1
    return cross_entropy(outputs, {"y": batch["y"] + 1})


def at(text: str) -> str:
    """A pattern for the place of the first line of this file that holds ``text``."""
    lines = Path(__file__).read_text().splitlines()
    return rf" \(test_task_checks.py, line {next(n for n, line in enumerate(lines, 1) if text in line)}\)"


BROKEN: list[tuple[Callable[[], Task], Callable[[Any], None], str]] = [
    (task_with(labels=np.zeros(3)), task_checks.check_task_is_whole, "labels: 3 of them"),
    (task_with(clients=np.array([0, 2] * 4)), task_checks.check_task_is_whole, "numbered 0"),
    (task_with(outputs=1), task_checks.check_task_is_whole, "outputs = 1, but y goes up to 1"),
    (nan_task, task_checks.check_task_is_whole, "x holds NaN"),
    (random_task, task_checks.check_task_is_deterministic, "different samples"),
    (
        task_with(loss=lambda outputs, batch: outputs[:, :1]),
        task_checks.check_task_counts_samples_singly,
        r"loss gives shape \(6, 1\) for 6 samples.*" + at("loss=lambda outputs, batch: outputs[:, :1]"),
    ),
    (
        task_with(loss=entropy_by_hand),
        task_checks.check_task_measures_all_outputs,
        r"outputs of \+-60 is not finite" + at("def entropy_by_hand"),
    ),
    (
        task_with(metrics={"above": lambda outputs, batch: outputs[:, 0].relu() / outputs[:, 0].relu()}),
        task_checks.check_task_measures_all_outputs,
        "above of outputs of",
    ),
    (
        task_with(metrics={"shifted": shifts_labels}),
        task_checks.check_task_writes_into_nothing,
        r"shifted writes into y" + at('["y"] -= 1'),
    ),
    (
        task_with(transform=lambda task: lambda batch, words: {**batch, "x": batch["x"] - batch["x"].mean(0)}),
        task_checks.check_task_counts_samples_singly,
        "depends on how many",
    ),
]


@pytest.mark.parametrize("make, check, why", BROKEN, ids=lambda x: getattr(x, "__name__", "").removeprefix("check_"))
def test_each_check_detects_its_fault(make: Callable[[], Task], check: Callable[[Any], None], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check(make)


def test_a_metric_that_is_no_tensor_is_reported_once_with_its_line() -> None:
    make = task_with(metrics={"share": lambda outputs, batch: float(len(batch["y"]))})
    task_checks.check_task_measures_all_outputs(make)
    with pytest.raises(AssertionError, match="share gives a float" + ".*" + at('"share": lambda')):
        task_checks.check_task_counts_samples_singly(make)


def test_every_check_has_a_fault_that_it_detects() -> None:
    assert {check for _, check, _ in BROKEN} == {*task_checks.TASK_CHECKS}
