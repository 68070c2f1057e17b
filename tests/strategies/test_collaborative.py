"""Weights by agreement, by hand; what clients report does not count."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from fl_sim import tree
from fl_sim.tree import Tree
from strategies.collaborative import Agreement, Collaborative


def pooled(updates: list[Tree], weights: list[float] | None = None) -> Tree:
    """The updates of clients with these weights, pooled one by one."""
    pool, like = Agreement(), updates[0]
    partial = pool.start(like)
    for update, weight in zip(updates, weights or [1.0] * len(updates), strict=True):
        partial = pool.add(partial, tree.stack([update]), torch.tensor([weight], dtype=torch.float64))
    return pool.finish(partial, like)


def leaves(**values: Any) -> Tree:
    """A tree of float64."""
    return {k.replace("_", "."): torch.tensor(x, dtype=torch.float64) for k, x in values.items()}


def test_three_clients_and_two_layers_by_hand() -> None:
    # Lengths 5, 5 and 10: the median is 5, and the third is halved. Layer a: (3, 0), (0, 3), (3, 0). The mean of the
    # others is (3, 3) / 2 for the first and third (cosine 1 / sqrt 2) and (3, 0) for the second (cosine 0).
    # Layer b: 4, -4, 4; the others' means are 0, 4 and 0, the cosines 0, -1 and 0: none agrees, and the median is 4.
    updates = [leaves(a_w=[3, 0], b_w=[4]), leaves(a_w=[0, 3], b_w=[-4]), leaves(a_w=[6, 0], b_w=[8])]
    found = pooled(updates)
    assert (found["a.w"].tolist(), found["b.w"].tolist()) == (pytest.approx([3, 0], abs=1e-14), [4])


def test_two_weights_by_hand_and_a_layer_is_one_with_its_bias() -> None:
    # Lengths 1, sqrt 2, 1; clipped to 1: (1, 0), (h, h), (1, 0) with h = sqrt(1/2), two of the numbers in one layer.
    # Others' mean of the first: (1 + h, h) / 2, at 22.5 degrees from it; of the second (1, 0), at 45 degrees.
    h, a, b = math.sqrt(0.5), math.cos(math.pi / 8), math.cos(math.pi / 4)
    updates = [leaves(l_weight=[1], l_bias=[0]), leaves(l_weight=[1], l_bias=[1]), leaves(l_weight=[1], l_bias=[0])]
    expected = {"l.weight": (2 * a + b * h) / (2 * a + b), "l.bias": b * h / (2 * a + b)}
    for weights in ([1.0, 1.0, 1.0], [1.0, 1e6, 3.0]):
        found = pooled(updates, weights)
        assert {k: float(x) for k, x in found.items()} == pytest.approx(expected, rel=1e-14)
    assert {k: float(x) for k, x in pooled(updates[::-1]).items()} == pytest.approx(expected, rel=1e-14)


def test_one_client_opposite_ones_and_none_that_moved() -> None:
    one = leaves(l_w=[3, -4])
    assert pooled([one])["l.w"].tolist() == [3, -4]
    assert pooled([one, tree.scale(one, -1.0)])["l.w"].tolist() == [0, 0]  # of two the median is their mean
    assert pooled([tree.zeros(one)] * 3)["l.w"].tolist() == [0, 0]
    # 100 times as long and with the sign turned: clipped, against two that agree
    assert pooled([one, one, tree.scale(one, -100.0)])["l.w"].tolist() == pytest.approx([3, -4], rel=1e-14)


def test_integer_leaves_are_medians_and_keep_their_dtype() -> None:
    updates = [{"l.w": torch.ones(2), "l.n": torch.tensor(n)} for n in (1, 2, 9)]
    found = pooled(updates)
    assert (found["l.n"].dtype, int(found["l.n"])) == (torch.int64, 2)
    assert found["l.w"].dtype == torch.float32 and found["l.w"].tolist() == [1, 1]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_number_of_samples_that_a_client_reports_counts_nothing(quadratics: Any, engine: str) -> None:
    # One step of 1/2 from 0: updates 3, 4 and -5. The median length is 4, so that the third is -4. The others' means
    # are 0, -1/2 and 7/2: the cosines are 0, -1 and -1. The median of 3, 4, -4 is 3.
    clients = [(1, 6), (1, 8), (1, -10)]
    for copies in ([1, 1, 1], [1, 7, 2]):
        settings = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}
        trained = quadratics(clients, copies).train(Collaborative(), settings, engine=engine)
        assert float(trained.model["w"]) == pytest.approx(3, rel=1e-14)


def test_running_statistics_are_plain_means(federation: Any) -> None:
    x = torch.arange(24, dtype=torch.float64).reshape(12, 2).numpy()
    clients = [(x[:2], [0, 1]), (x[2:6], [0, 1, 0, 1]), (x[6:12], [0, 1] * 3)]
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    settings = {"local.lr": 0.1, "local.steps": 1, "local.batch_size": 0}
    model = federation(module, clients, outputs=2).train(Collaborative(), settings).model
    means = torch.tensor([part.mean(0).tolist() for part, _ in clients], dtype=torch.float64)
    torch.testing.assert_close(model["0.running_mean"], 0.1 * means.mean(0), rtol=1e-13, atol=0)
    assert int(model["0.num_batches_tracked"]) == 1
