"""The gradient of a batch in shards is the batch's own, to rounding, with the draws of the whole batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.errors import ConfigError
from fl_sim.learning.batch import Batch
from fl_sim.learning.loss import Loss
from fl_sim.learning.sharded.shard_tree import Node, bounds, summed
from fl_sim.learning.sharded.sharded_loss import PartOfBatch, ShardedLoss, weights_of_shards
from fl_sim.learning.transform import Transform

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(10, 3, 8, 8)), DRAW.integers(0, 3, 10)


def loss_of(y: Any = Y, dropout: float = 0.3, **options: Any) -> Loss:
    """A network with a keyed dropout layer on augmented pictures."""
    with rng.keyed_globals(0):
        module = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 3))
    task = replace(from_arrays(X, y, outputs=3, test_share=0.0, **options), transform=Transform(augment=True))
    return Loss(module, task, torch.float64)


def batch_of(loss: Loss, count: int) -> Batch:
    return Batch({k: v[:count] for k, v in loss.task.train.items()}, rng.words(5))


def assert_close(loss: Loss, count: int, shards: int, plus: Any = None) -> None:
    model, batch = loss.initial(), batch_of(loss, count)
    (whole, value, _), (parts, mean, _) = (
        each.gradient(model, batch, plus) for each in (loss, ShardedLoss(loss, shards))
    )
    for name, x in {**whole, "loss": value}.items():
        found = {**parts, "loss": mean}[name]
        assert float((found - x).norm()) <= 1e-12 * float(x.norm()), (name, shards)


@pytest.mark.parametrize(("count", "shards"), [(10, 1), (10, 2), (10, 4), (7, 3), (3, 4), (1, 4)])
@pytest.mark.parametrize("dropout", [0.25, 0.3])  # a 32-bit word gives four elements of the mask, or two
def test_dropout_and_augmentation_are_those_of_the_whole_batch(count: int, shards: int, dropout: float) -> None:
    assert_close(loss_of(dropout=dropout), count, shards)


def test_labels_that_are_ignored_weigh_nothing() -> None:
    y = Y.copy()
    y[[0, 1, 2, 7]] = -100  # with four shards of ten samples the first one has no label at all
    loss = loss_of(y, ignore_index=-100)
    assert weights_of_shards(batch_of(loss, 10), 4) == (0, 3, 1, 2)
    assert_close(loss, 10, 4)
    with pytest.raises(ConfigError, match="adds a term to the loss, and task.ignore_index = -100"):
        ShardedLoss(loss, 4).gradient(loss.initial(), batch_of(loss, 10), lambda o, d: o.sum(1))


def test_a_batch_without_any_label_has_no_gradient() -> None:
    y = Y.copy()
    y[:5] = -100
    loss = loss_of(y, ignore_index=-100)
    grads, value, _ = ShardedLoss(loss, 4).gradient(loss.initial(), batch_of(loss, 5))
    assert float(tree.norm(grads)) == float(value) == 0


def test_a_term_of_the_rule_is_averaged_too() -> None:
    def term(outputs: Tensor, samples: Any) -> Tensor:
        return outputs.square().sum(1)

    assert_close(loss_of(), 10, 4, term)


def test_processes_that_hold_parts_of_a_batch_sum_to_the_same_bits() -> None:
    loss, edges = loss_of(), bounds(10, 4)
    model, batch = loss.initial(), batch_of(loss, 10)
    expected = ShardedLoss(loss, 4).gradient(model, batch)
    kept: dict[int, Tensor] = {}

    def part(first: int, last: int) -> PartOfBatch:
        rows = slice(edges[first], edges[last])
        own = {k: v[rows] for k, v in batch.data.items()}
        return PartOfBatch(own, batch.words, samples=10, first=edges[first], weights=weights_of_shards(batch, 4))

    def keep(leaf: Any, weights: Any) -> None:
        kept.update({s: leaf(s) for s in owned})

    for owned in ((0,), (1, 2, 3)):
        held = part(owned[0], owned[-1] + 1)
        assert (held.size, held.weight) == (10, 10)
        ShardedLoss(loss, 4, keep).gradient(model, held)
    total = ShardedLoss(loss, 4, lambda leaf, weights: summed(Node(0, 4), kept.__getitem__)).gradient(model, part(0, 1))
    assert tree.digest(total[0]) == tree.digest(expected[0]) and total[1] == expected[1]


@pytest.mark.parametrize("use", ["loss", "outputs", "metrics"])
def test_what_needs_a_whole_batch_is_refused(use: str) -> None:
    loss = ShardedLoss(loss_of(), 2)
    functions: dict[str, Any] = {"loss": loss, "outputs": loss.outputs, "metrics": loss.metrics}
    with pytest.raises(ConfigError, match="no process of a silo has a whole batch"):
        functions[use](loss.initial(), batch_of(loss, 4))
