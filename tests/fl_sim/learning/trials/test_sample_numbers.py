"""A sum, a number that depends on the batch, and one that depends on earlier calls are seen where all numbers are 0."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.measures import MeasureFailed
from fl_sim.learning.trials.sample_numbers import Numbers, examined
from fl_sim.tree import Tree

SCORES = torch.tensor([[0.0, 1.0, 0.5]] * 7, dtype=torch.float64)
WRONG = {"y": torch.tensor([0, 0, 2, 2, 0, 2, 0])}
"""Classes of which ``SCORES`` hit none."""
RIGHT = Numbers(True, "")


def hits(o: Tensor, b: Tree) -> Tensor:
    return (o.argmax(1) == b["y"]).double()


def of_class_1(o: Tensor, b: Tree) -> Tensor:
    """The mean over the samples of one class, which is 0 / 0 where a batch has none."""
    return hits(o, b)[o.argmax(1) == 1].mean()


REFUSED = {
    "sum": (lambda o, b: hits(o, b).sum(), "mine gives a sum over the samples"),
    "sum over the batch size of training": (lambda o, b: hits(o, b).sum() / 32, "mine gives a sum"),
    "share of all hits": (lambda o, b: hits(o, b) / hits(o, b).sum().clamp(min=1), "depends on the other samples"),
    "hits over the batch": (lambda o, b: hits(o, b) / len(o), "depends on the other samples"),
    "precision": (of_class_1, "no mean over samples"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_0_for_an_untrained_network_is_seen_on_other_outputs(kind: str) -> None:
    function, message = REFUSED[kind]
    with pytest.raises(ConfigError, match=message):
        examined("mine", function, SCORES, WRONG, None)


@pytest.mark.parametrize("metric", [hits, lambda o, b: hits(o, b).mean(), lambda o, b: o.argmax(1) == b["y"]])
def test_means_of_hits_stay_right_where_all_are_0(metric: Any) -> None:
    assert examined("mine", metric, SCORES, WRONG, None) == RIGHT


def test_sums_of_one_score_and_of_regressions_are_seen() -> None:
    column, y = torch.full((7, 1), -3.0), {"y": torch.ones(7, 1)}  # every logit says 0, every label is 1
    with pytest.raises(ConfigError, match="gives a sum"):
        examined("mine", lambda o, b: ((o > 0) == (b["y"] > 0.5)).sum(), column, y, None)
    with pytest.raises(ConfigError, match="loss gives a sum"):  # an exact fit at the start
        examined("loss", lambda o, b: (o - b["y"]).square().sum(), y["y"].clone(), y, None)
    assert examined("loss", lambda o, b: (o - b["y"]).square().mean(), y["y"].clone(), y, None) == RIGHT


def test_a_hinge_loss_that_is_0_at_first_is_seen_to_depend_on_its_batch() -> None:
    def apart(o: Tensor, b: Tree) -> Tensor:
        """How far each sample's score is above that of the batch's mean plus a margin."""
        return (o[:, 1] - o[:, 1].mean() - 0.5).clamp(min=0)

    assert float(apart(SCORES, WRONG).sum()) == 0
    assert examined("loss", apart, SCORES, WRONG, None) == Numbers(False, "")


def test_what_cannot_be_told_is_said() -> None:
    found = examined("mine", lambda o, b: hits(o, b).sum() * 0, SCORES, WRONG, None)
    assert (
        found.alone
        and "mine is 0, or no finite number, for all samples that were tried: whether it is" in found.warning
    )
    assert "mine is 0" in examined("mine", lambda o, b: o.sum() * torch.nan, SCORES, WRONG, None).warning


def test_other_outputs_that_a_function_cannot_take_are_left_out() -> None:
    shares = SCORES.softmax(1)

    def strict(o: Tensor, b: Tree) -> Tensor:
        assert bool((o.sum(1) - 1).abs().max() < 1e-6), "no probabilities"
        return hits(o, b).sum()

    with pytest.raises(ConfigError, match="gives a sum"):  # the highest score of each sample exchanged: probabilities
        examined("mine", strict, shares, WRONG, None)
    with pytest.raises(MeasureFailed, match="AssertionError: no probabilities"):  # the network's own outputs must pass
        examined("mine", strict, SCORES, WRONG, None)


def test_a_function_that_remembers_is_refused_as_a_metric_and_told_as_a_loss() -> None:
    class Smoothed:
        def __init__(self) -> None:
            self.mean = torch.zeros(())

        def __call__(self, o: Tensor, b: Tree) -> Tensor:
            self.mean = 0.999 * self.mean + 0.001 * o.mean().detach()
            return o.square().sum(1) + self.mean

    with pytest.raises(ConfigError, match="mine gives other numbers when it is called again .* set_metrics"):
        examined("mine", Smoothed(), SCORES, WRONG, None)
    found = examined("loss", Smoothed(), SCORES, WRONG, None)
    assert not found.alone and not found.repeats and "shared by the clients of one process" in found.warning


def test_what_a_loss_counts_is_told_before_it_changes_a_number() -> None:
    """A schedule by the number of calls would depend on how many clients came before."""
    calls, steps = 0, torch.zeros(())

    def scheduled(o: Tensor, b: Tree) -> Tensor:
        nonlocal calls
        calls += 1
        steps.add_(1)
        return o.square().sum(1) * (1.0 if calls < 1000 else 0.1)

    found = examined("loss", scheduled, SCORES, WRONG, None)
    assert found.alone and not found.repeats
    assert found.warning.startswith("the loss changes calls, steps when it is called: this is shared by the clients of")
    assert examined("mine", scheduled, SCORES, WRONG, None) == RIGHT


def test_random_numbers_are_no_memory() -> None:
    def noisy(o: Tensor, b: Tree) -> Tensor:
        return o.square().sum(1) * (1 + torch.rand(len(o)))

    assert examined("loss", noisy, SCORES, WRONG, None) == Numbers(False, "")
