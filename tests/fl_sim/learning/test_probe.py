"""What is refused of losses and metrics before a run, and which losses keep a run on the loop."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import accuracy, cross_entropy
from fl_sim.learning.probe import Findings, probe
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 5))
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)
COLUMN = (X[:, :1] > 0).astype(float)
NOTHING = Findings("", "")
bce = F.binary_cross_entropy_with_logits


def loss_of(
    loss: Any = None,
    y: Any = CLASSES,
    outputs: int = 3,
    metrics: Any = None,
    module: nn.Module | None = None,
    **own: Any,
) -> Loss:
    """A linear model's loss; ``loss`` and ``metrics`` are the task's own."""
    with rng.keyed_globals(0):
        network = module or nn.Linear(5, outputs)
    task = from_arrays(X[: len(y)], y, x_test=X[:1], y_test=y[:1], outputs=outputs, loss=loss, metrics=metrics)
    return Loss(network, task, torch.float64)


def column(**arguments: Any) -> Any:
    """Binary cross-entropy of one logit a sample."""
    return lambda o, b: bce(o, b["y"], **arguments)


def elementwise(o: Tensor, b: Tree) -> Tensor:
    return column(reduction="none")(o, b)


REFUSED_LOSSES = {
    "column": (
        elementwise,
        r"^loss gives shape \(7, 1\) for 7 samples; it must give \(7,\), one number a sample, or a s",
    ),
    "three numbers": (lambda o, b: elementwise(o, b).expand(-1, 3), r"shape \(7, 3\).*\.flatten\(1\)\.mean\(1\)"),
    "pairs": (
        lambda o, b: o - b["y"].squeeze(1),
        r"shape \(7, 7\) for 7 samples.*outputs and y of shape \(7, 1\)",
    ),
    "always 7 numbers": (
        lambda o, b: o.mean().expand(7),
        r"loss gives shape \(7,\) for 5 samples; it must give \(5,\)",
    ),
    "one number in a list": (lambda o, b: bce(o, b["y"])[None], r"loss gives shape \(1,\) for 7 samples"),
    "sum": (column(reduction="sum"), "loss gives a sum over the samples; it must give one number a sample, or"),
    "a number of Python": (lambda o, b: bce(o, b["y"]).item(), "loss gives a float .*; it must give a tensor"),
    "a number of NumPy": (lambda o, b: np.float64(bce(o, b["y"]).item()), r"loss gives a numpy\.float64"),
    "no gradient": (lambda o, b: elementwise(o.detach(), b).squeeze(1), "loss has no gradient"),
    "whole numbers": (lambda o, b: ((o > 0) != b["y"]).squeeze(1), "loss has no gradient"),
    "complex": (lambda o, b: elementwise(o, b).squeeze(1) * 1j, "loss gives complex numbers"),
    "both": (
        lambda o, b: bce(o, b["y"]) if len(o) == 5 else elementwise(o, b).squeeze(1),
        "for some batches",
    ),
}


@pytest.mark.parametrize("kind", REFUSED_LOSSES)
def test_a_loss_that_gives_neither_a_number_a_sample_nor_a_mean_is_refused(kind: str) -> None:
    function, message = REFUSED_LOSSES[kind]
    with pytest.raises(ConfigError, match=message):
        probe(loss_of(function, COLUMN, 1))


def test_a_target_of_another_shape_is_refused_where_pytorch_warns() -> None:
    with pytest.raises(ConfigError, match="loss: outputs and y broadcast: Using a target size"):
        probe(loss_of(lambda o, b: F.mse_loss(o, b["y"]), COLUMN[:, 0], 1))


REFUSED_METRICS = {
    "numpy": (lambda o, b: (o.argmax(1) == b["y"]).numpy().mean(), r"mine gives a numpy\.float64.*must give a tensor"),
    "a list": (lambda o, b: [1.0], "mine gives a list"),
    "one-hot": (lambda o, b: F.one_hot(o.argmax(1), 3) == b["y"][:, None], r"mine gives shape \(7, 3\)"),
    "pairs": (lambda o, b: o.argmax(1) == b["y"][:, None], r"mine gives shape \(7, 7\)"),
    "mean of pairs": (
        lambda o, b: (o.argmax(1) == b["y"][:, None]).double().mean(),
        "no mean.*set_metrics",
    ),
    "means of pairs": (lambda o, b: (o.argmax(1) == b["y"][:, None]).double().mean(1), "depends on the other samples"),
    "sum": (lambda o, b: (o.argmax(1) == b["y"]).double().sum(), "mine gives a sum"),
    "precision": (
        lambda o, b: b["y"][o.argmax(1) == 1].double().mean().nan_to_num(),
        "no mean.*set_metrics",
    ),
}


@pytest.mark.parametrize("kind", REFUSED_METRICS)
def test_a_metric_that_is_no_mean_over_samples_is_refused(kind: str) -> None:
    function, message = REFUSED_METRICS[kind]
    with pytest.raises(ConfigError, match=message):
        probe(loss_of(metrics={"mine": function}))


@pytest.mark.parametrize(
    "metric", [accuracy, lambda o, b: o.argmax(1) == b["y"], lambda o, b: (o.argmax(1) == b["y"]).double().mean()]
)
def test_hits_are_metrics_whatever_their_type(metric: Any) -> None:
    loss = loss_of(metrics={"mine": metric})
    assert probe(loss) == NOTHING
    from fl_sim.engines.evaluate import evaluate

    model, data = loss.initial(), {"x": torch.from_numpy(X), "y": torch.from_numpy(CLASSES)}
    scores = data["x"] @ model["weight"].T + model["bias"]
    assert evaluate(loss, model, data)["mine"] == pytest.approx(np.mean(scores.argmax(1).numpy() == CLASSES), abs=1e-12)


class Centred(nn.Module):
    """A network whose outputs depend on the other samples of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x - x.mean(0))
        return outputs


def weighted(o: Tensor, b: Tree) -> Tensor:
    """PyTorch's mean with a weight for each class, whose denominator is the batch's sum of weights."""
    return F.cross_entropy(o, b["y"], weight=torch.tensor([1.0, 2.0, 5.0]).to(o))


def test_a_loss_that_padding_would_change_says_why() -> None:
    assert probe(loss_of()) == NOTHING
    assert probe(loss_of(elementwise_ce)) == NOTHING
    scalar = probe(loss_of(lambda o, b: F.cross_entropy(o, b["y"])))
    assert "a mean over the batch" in scalar.unpaddable and scalar.warning == ""
    found = probe(loss_of(weighted))
    assert "a mean over the batch" in found.unpaddable and "no mean over samples" in found.warning
    for loss in (loss_of(lambda o, b: weighted(o, b).expand(len(o))), loss_of(module=Centred())):
        assert "depends on the other samples" in probe(loss).unpaddable


def test_weights_by_the_counts_of_classes_in_a_batch_are_seen() -> None:
    """Samples of other classes than those before them change no loss: only one of the same class does."""

    def balanced(o: Tensor, b: Tree) -> Tensor:
        return elementwise_ce(o, b) / F.one_hot(b["y"], 3).sum(0)[b["y"]]

    x, y = torch.arange(28.0).reshape(7, 4), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    for seed, rows in enumerate((torch.arange(7), torch.tensor([0, 2, 5]), torch.arange(7).flip(0)) * 10):
        torch.manual_seed(seed)  # some of these networks are sure of a class, whose samples have a loss near 0
        task = from_arrays(x[rows], y[rows], x_test=x, y_test=y, outputs=3, loss=balanced)
        assert "depends on the other samples" in probe(Loss(torch.nn.Linear(4, 3), task)).unpaddable


def elementwise_ce(o: Tensor, b: Tree) -> Tensor:
    return F.cross_entropy(o, b["y"], reduction="none")


def test_a_few_samples_are_enough() -> None:
    for count in (1, 2, 3):
        assert probe(loss_of(y=CLASSES[:count])) == NOTHING


def test_nothing_is_changed_by_the_probe() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    loss = loss_of(module=module)
    before, state = tree.digest(loss.training.state_dict()), torch.get_rng_state()
    assert probe(loss) == NOTHING  # BatchNorm itself keeps a run on the loop
    assert tree.digest(loss.training.state_dict()) == before and torch.equal(torch.get_rng_state(), state)


def test_a_network_without_trainable_parameters_needs_no_gradient() -> None:
    assert probe(loss_of(module=nn.Linear(5, 3).requires_grad_(False))) == NOTHING


def test_classes_in_a_column_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"outputs have shape \(7, 3\), y has \(7, 1\); y must have outputs' shape"):
        probe(loss_of(y=CLASSES[:, None]))
    with pytest.raises(ConfigError, match=r"outputs have shape \(7, 3\), y has \(7, 1\)"):
        probe(replace_metrics(loss_of(lambda o, b: cross_entropy(o, {"y": b["y"][:, 0]}), CLASSES[:, None])))


def replace_metrics(loss: Loss) -> Loss:
    """The same with the built-in accuracy alone."""
    loss.task = replace(loss.task, metrics={"accuracy": accuracy})
    return loss


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


class CentredLater(Centred):
    """Its outputs depend on the other samples in evaluation mode alone."""

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x) if self.training else super().forward(x)
        return outputs


class WithSize(nn.Module):
    """Gives a number of the whole batch beside the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs: Tensor = self.linear(x)
        return outputs, outputs.square().mean()


def test_outputs_that_padding_would_change_in_evaluation_keep_a_run_on_the_loop() -> None:
    found = probe(loss_of(module=CentredLater()))
    assert "depends on the other samples" in found.unpaddable
    assert found.warning.startswith("in evaluation mode the outputs of a sample depend on the other samples")
    spread = {"spread": lambda o, b: o[1].expand(len(b["y"]))}
    taken = lambda o, b: elementwise_ce(o[0], b)  # noqa: E731
    assert probe(loss_of(taken, module=WithSize(), metrics={})) == NOTHING
    assert "depends on the other samples" in probe(loss_of(taken, module=WithSize(), metrics=spread)).unpaddable


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
