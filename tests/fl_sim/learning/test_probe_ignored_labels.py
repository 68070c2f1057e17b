"""Losses and metrics with labels that do not count: means over the others, or refused or told before a run."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import accuracy
from fl_sim.learning.probe import Findings, probe
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 5))
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)
NOTHING = Findings("", "")


def elementwise_ce(o: Tensor, b: Tree) -> Tensor:
    return F.cross_entropy(o, b["y"], reduction="none")


PLACES = np.where(DRAW.random((40, 4)) < 0.3, -100, DRAW.integers(0, 3, (40, 4)))
"""Labels of which some do not count: of the first sample none does."""
PLACES[0] = -100


def tagger_loss(loss: Any = None, metrics: Any = None) -> Loss:
    """A task with an ignored label, and scores of three classes at four places."""
    x = np.random.default_rng(3).normal(size=(40, 1, 4))
    with rng.keyed_globals(0):
        network = nn.Conv1d(1, 3, 1)
    task = from_arrays(x, PLACES, x_test=x, y_test=PLACES, loss=loss, metrics=metrics, ignore_index=-100, outputs=3)
    return Loss(network, task, torch.float64)


def over_places(o: Tensor, b: Tree, least: int = 1) -> Tensor:
    return elementwise_ce(o, b).sum(1) / (b["y"] != -100).sum(1).clamp(min=least)


def test_with_an_ignored_label_a_number_a_sample_is_a_mean_over_labels_that_count() -> None:
    assert probe(tagger_loss()) == probe(tagger_loss(over_places, {"hits": accuracy})) == NOTHING
    for wrong in (lambda o, b: elementwise_ce(o, b).mean(1), lambda o, b: elementwise_ce(o, b).sum(1)):
        with pytest.raises(ConfigError, match=r"loss of a sample is not the mean over its labels that count .*= -100"):
            probe(tagger_loss(wrong))
    with pytest.raises(ConfigError, match="hits of a sample is not the mean over its labels that count"):
        probe(tagger_loss(metrics={"hits": lambda o, b: (o.argmax(1) == b["y"]).double().mean(1)}))


def test_a_number_that_is_no_mean_over_labels_is_told_how_samples_weigh() -> None:
    def dice(o: Tensor, b: Tree) -> Tensor:
        mask = (b["y"] != -100)[:, None]
        hot, shares = F.one_hot(b["y"].clamp(min=0), 3).movedim(-1, 1).to(o), o.softmax(1)
        return 1 - (2 * (shares * hot * mask).sum((1, 2)) + 1) / (((shares + hot) * mask).sum((1, 2)) + 1)

    found = probe(tagger_loss(dice, {"hits": accuracy}))
    assert not found.unpaddable
    assert found.warning.startswith("loss of a sample is no mean over its labels that count (task.ignore_index = -100)")


def by_mask(o: Tensor, b: Tree) -> Tensor:
    """A mean that multiplies by a mask, and whose gradient is NaN * 0 where no label counts."""
    counts = b["y"] != -100
    logs = o.log_softmax(1).gather(1, b["y"].clamp(min=0)[:, None])[:, 0]
    return -(logs * counts / counts.sum(1, keepdim=True)).sum(1)


def test_a_loss_that_divides_by_no_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss has a gradient for weight that is NaN where no label of a sample"):
        probe(tagger_loss(by_mask))
    found = probe(tagger_loss(lambda o, b: F.cross_entropy(o, b["y"])))  # 0 / 0 too, which is left out of every mean
    assert "a mean over the batch" in found.unpaddable and not found.warning


@pytest.mark.parametrize("kind", ["divides", "masks", "keeps"])
def test_a_loss_of_single_labels_whose_gradient_is_nan_where_none_counts_has_its_own_cure(kind: str) -> None:
    """0 * NaN is NaN; a constant that is NaN has no gradient, and is left out of every mean."""
    y = np.where(np.arange(40) % 4 == 0, -100, CLASSES)

    def own(o: Tensor, b: Tree) -> Tensor:
        counts = b["y"] != -100
        values = elementwise_ce(o, {"y": b["y"].clamp(min=0)})
        if kind == "divides":
            return values / counts
        return (
            values * torch.where(counts, 1.0, torch.nan) if kind == "masks" else torch.where(counts, values, torch.nan)
        )

    task = from_arrays(X, y, x_test=X, y_test=y, outputs=3, loss=own, ignore_index=-100)
    with rng.keyed_globals(0):
        loss = Loss(nn.Linear(5, 3), task, torch.float64)
    if kind != "keeps":
        with pytest.raises(
            ConfigError, match=r"weight that is NaN .*b\['y'\]\.clamp\(min=0\), and neither divide by 0"
        ):
            probe(loss)
        return
    assert probe(loss) == NOTHING
    batch, right = Batch(dict(loss.task.train), rng.words(0)), torch.from_numpy(CLASSES)[torch.from_numpy(y) != -100]
    leaves = {k: v.requires_grad_() for k, v in loss.initial().items()}
    kept = torch.from_numpy(X)[torch.from_numpy(y) != -100]
    F.cross_entropy(kept @ leaves["weight"].T + leaves["bias"], right).backward()
    for name, slope in loss.gradient(loss.initial(), batch)[0].items():
        assert torch.allclose(slope, leaves[name].grad, atol=1e-12)  # type: ignore[arg-type]
