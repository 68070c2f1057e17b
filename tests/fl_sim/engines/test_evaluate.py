"""Evaluation where labels are ignored: PyTorch's mean over all labels that count, whatever the blocks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl_sim import Batch, Task, accuracy, from_arrays, rng, tree
from fl_sim.engines import evaluate as module
from fl_sim.engines.evaluate import block_sums, evaluate, evaluate_models, means
from fl_sim.learning.loss import Loss

BLOCK = 7


@pytest.fixture
def loss(monkeypatch: pytest.MonkeyPatch) -> Loss:
    """Three classes at each of six places; samples have from none to six labels that count."""
    monkeypatch.setattr(module, "BLOCK", BLOCK)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(31, 1, 6)), draw.integers(0, 3, (31, 6))
    y[draw.random((31, 6)) < np.linspace(0, 1, 31)[:, None]] = -100
    y[BLOCK : 2 * BLOCK] = -100  # a block without a label that counts
    with rng.keyed_globals(0):
        network = nn.Conv1d(1, 3, 1)
    return Loss(network, from_arrays(x, y, x_test=x, y_test=y), torch.float64)


def pytorchs(loss: Loss, model: tree.Tree) -> dict[str, float]:
    """Loss and accuracy of the test set by PyTorch's own functions."""
    x, y = loss.task.test["x"], loss.task.test["y"]
    outputs = F.conv1d(x, model["weight"], model["bias"])
    hits = (outputs.argmax(1) == y)[y != -100]
    return {"loss": F.cross_entropy(outputs, y).item(), "accuracy": hits.double().mean().item()}


def test_evaluation_in_blocks_is_the_mean_over_labels_that_count(loss: Loss) -> None:
    model = loss.initial()
    other = tree.scale(model, -2.0)
    assert evaluate(loss, model, loss.task.test) == pytest.approx(pytorchs(loss, model), abs=1e-12)
    both = evaluate_models(loss, [model, other], loss.task.test)
    assert both == [pytest.approx(pytorchs(loss, own), abs=1e-12) for own in (model, other)]
    sums = [block_sums(loss, model, loss.task.test, start) for start in range(0, 31, BLOCK)]
    assert means(sums, 31) == evaluate(loss, model, loss.task.test)  # Ray's way


def test_the_label_of_pytorch_is_ignored_in_a_task_of_ones_own_too(loss: Loss) -> None:
    plain = Task("own", loss.task.test, loss.task.test, 3, metrics={"accuracy": accuracy})
    own = Loss(loss.training, plain, torch.float64)
    assert plain.ignore_index is None and own.task.ignore_index == -100
    model = own.initial()
    assert evaluate(own, model, plain.test) == pytest.approx(pytorchs(loss, model), abs=1e-12)


def test_a_set_without_a_label_that_counts_gives_zeros(loss: Loss) -> None:
    nothing = {k: v[BLOCK : 2 * BLOCK] for k, v in loss.task.test.items()}
    assert evaluate(loss, loss.initial(), nothing) == {"loss": 0.0, "accuracy": 0.0}
    assert evaluate_models(loss, [loss.initial()], nothing) == [{"loss": 0.0, "accuracy": 0.0}]


def test_metrics_of_a_padded_batch_are_those_of_its_real_samples(loss: Loss) -> None:
    rows = torch.arange(10)
    batch = Batch({k: v[rows] for k, v in loss.task.test.items()}, rng.words(0), rows < 6)
    plain = Batch({k: v[:6] for k, v in loss.task.test.items()}, rng.words(0))
    found, expected = (loss.metrics(loss.initial(), b) for b in (batch, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert loss.weighted_metrics(loss.initial(), batch)[1] == (loss.task.test["y"][:6] != -100).sum()
