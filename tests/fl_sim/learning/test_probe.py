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
from fl_sim.learning.loss import Loss
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
