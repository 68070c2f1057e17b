"""What a strategy has to say of a network is in the run's log and summary."""

from pathlib import Path

import torch
from torch import nn

from experiments.run import run
from fl_sim import from_arrays, rng

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(80, 8, generator=GENERATOR)
TASK = from_arrays(X, (X.sum(1) > 0).long(), clients=torch.arange(80) % 4, name="tiny")


def network(act: nn.Module) -> nn.Module:
    """200 hidden units."""
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(8, 200), act, nn.Linear(200, 2))


def test_the_error_of_a_finite_difference_on_a_network_with_kinks_is_an_event(tmp_path: Path) -> None:
    settings = {"task": TASK, "rounds": 1, "cohort": 2, "out": str(tmp_path), "strategy": "perfedavg"}
    relu, tanh = (run(model=network(act), **settings, **{"strategy.order": "hf"}) for act in (nn.ReLU(), nn.Tanh()))
    [told] = [reason for reason in relu.log.events.query("event == 'model'").reason if "strategy.order hf" in reason]
    assert "(largest) in 4 batches of 32 samples" in told and "the gradient jumps" in told
    assert told in relu.summary["model_notes"]
    assert "strategy.order" not in (tanh.summary["model_notes"] or "")
