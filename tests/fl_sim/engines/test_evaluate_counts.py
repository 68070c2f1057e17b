"""An accuracy is the quotient of two counts: the float nearest to HITS / LABELS, whoever evaluates."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_sim import Batch, Task, accuracy, rng, tree
from fl_sim.engines.evaluate import BLOCK, block_sums, evaluate, evaluate_models, means
from fl_sim.learning.loss import Loss

LABELS = 1003
"""More than two blocks, and no round number."""


def task_of(hits: int, labels: int, **options: Any) -> Task:
    """A model that returns its inputs predicts the first ``hits`` labels right, and the others wrong."""
    y = torch.zeros(labels, dtype=torch.int64)
    x = torch.stack([torch.arange(labels) < hits, torch.arange(labels) >= hits], 1).float()
    return Task("counts", {"x": x, "y": y}, {"x": x, "y": y}, 2, **{"metrics": {"accuracy": accuracy}, **options})


def loss_of(task: Task, dtype: torch.dtype = torch.float32) -> Loss:
    network = nn.Linear(2, 2, bias=False)
    nn.init.eye_(network.weight)
    return Loss(network, task, dtype)


def test_evaluation_is_the_exact_quotient_for_many_counts() -> None:
    loss = loss_of(task_of(0, LABELS))
    model, y = loss.initial(), loss.task.test["y"]
    models = [model, tree.scale(model, -1.0)]  # the other one is right where the first is wrong
    for hits in range(0, LABELS + 1, 59):
        data = {"x": task_of(hits, LABELS).test["x"], "y": y}
        sums = [block_sums(loss, model, data, start) for start in range(0, LABELS, BLOCK)]
        numbers = evaluate(loss, model, data)
        assert numbers["accuracy"] == hits / LABELS and means(sums, LABELS) == numbers  # Ray's way
        together = [found["accuracy"] for found in evaluate_models(loss, models, data)]
        assert together == [hits / LABELS, (LABELS - hits) / LABELS]


def test_9700_of_10000_are_not_below_97_percent() -> None:
    loss = loss_of(task_of(9700, 10_000))
    assert evaluate(loss, loss.initial(), loss.task.test)["accuracy"] == 0.97
    # what a mean of the blocks' means in float32 gives
    assert np.mean([np.float32(1.0)] * 19 + [np.float32(0.4)]) != 0.97


@pytest.mark.parametrize("metric", [accuracy, functools.partial(accuracy, class_axis="auto")])
def test_a_client_s_accuracy_is_the_exact_quotient(metric: Any) -> None:
    """Of a batch as the loop has it, and of padded ones under vmap."""
    loss = loss_of(task_of(5, 7, metrics={"accuracy": metric}))
    model, many = loss.initial(), loss.under_vmap()
    rows, words = dict(loss.task.test), rng.words(0)
    assert loss.metrics(model, Batch(rows, words))["accuracy"].item() == 5 / 7
    masks = torch.arange(7) < torch.arange(1, 8)[:, None]
    found = torch.func.vmap(lambda mask: many.metrics(model, Batch(rows, words, mask)))(masks)["accuracy"]
    assert found.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 5 / 6, 5 / 7]


def test_several_labels_a_sample_count_each() -> None:
    y = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
    x = torch.tensor([1.0, 0.0]).repeat(4, 3, 1)  # predicts 0: 6 of 12 labels
    loss = loss_of(Task("sequences", {"x": x, "y": y}, {}, 2, metrics={"accuracy": accuracy}, class_axis=-1))
    first, all_rows = ({"x": x[:n], "y": y[:n]} for n in (2, 4))
    assert evaluate(loss, loss.initial(), first)["accuracy"] == 4 / 6
    assert evaluate(loss, loss.initial(), all_rows)["accuracy"] == 6 / 12
    ignoring = loss_of(
        Task("own", {"x": x, "y": y}, {}, 2, metrics={"accuracy": accuracy}, class_axis=-1, ignore_index=1)
    )
    assert evaluate(ignoring, ignoring.initial(), all_rows)["accuracy"] == 1.0


def test_a_user_s_metric_keeps_its_contract() -> None:
    """The mean over samples of a function's numbers, in the run's type, even where these are hits."""

    def hits(outputs: torch.Tensor, batch: tree.Tree) -> torch.Tensor:
        return (outputs.argmax(-1) == batch["y"]).to(outputs.dtype)

    loss = loss_of(task_of(1, 3, metrics={"accuracy": accuracy, "own": hits, "built in": accuracy}))
    found = evaluate(loss, loss.initial(), loss.task.test)
    assert list(found) == ["loss", "accuracy", "own", "built in"]
    assert (found["accuracy"], found["built in"]) == (1 / 3, 1 / 3)
    assert found["own"] == float(np.float32(1 / 3)) * 3 / 3 != 1 / 3
