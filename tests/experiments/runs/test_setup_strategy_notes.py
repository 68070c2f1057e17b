"""What a strategy has to say of a network is in the run's log and summary."""

from pathlib import Path

import torch
from torch import nn

from experiments.config.recipe_files import make
from experiments.run import run
from experiments.runs.setup import build
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


class Table(nn.Module):
    """A network with a buffer that nothing writes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x * self.scale)


def test_maml_says_before_the_run_which_running_statistics_stay() -> None:
    normalised = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    settings = {"task": TASK, "rounds": 1}
    [told] = [note for note in build(make(**settings, model=normalised, strategy="maml")).notes if "maml" in note]
    names = "1.running_mean, 1.running_var, 1.num_batches_tracked"
    assert f"the running statistics {names} keep their initial values, by which evaluation normalises" in told
    for model, strategy in ((normalised, "perfedavg"), (Table(), "maml")):
        assert not any("statistics" in note for note in build(make(**settings, model=model, strategy=strategy)).notes)
