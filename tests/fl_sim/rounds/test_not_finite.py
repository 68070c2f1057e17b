"""An evaluation that gives NaN for a finite model is never silent: central, validation, unseen and personal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.run import from_arrays, run
from fl_sim.grids.exchange import Exchange
from fl_sim.rounds import not_finite


class Undefined(nn.Module):
    """A linear layer whose outputs are NaN in evaluation where the first input is above ``above``."""

    def __init__(self, above: float) -> None:
        super().__init__()
        self.linear, self.above = nn.Linear(2, 2), above

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x)
        return outputs if self.training else torch.where(x[:, :1] > self.above, torch.nan, outputs)


def run_with(above: float, tmp_path: Path, **settings: Any) -> Any:
    """A run of four clients with ten samples each, the last of which have first inputs of their id (0..3)."""
    x = np.stack([np.repeat(np.arange(4.0), 10), np.tile(np.arange(10.0), 4)], axis=1)
    y = np.arange(40) % 2
    task = from_arrays(x, y, clients=np.repeat(np.arange(4), 10), x_test=x[:20], y_test=y[:20])
    settings = {"partition": "natural", **settings}
    return run(task=task, model=Undefined(above), rounds=1, out=str(tmp_path), **settings)


def test_central_and_validation_are_an_event_and_in_the_summary(tmp_path: Path) -> None:
    outcome = run_with(-1.0, tmp_path, validation=0.2)
    events = outcome.log.events[outcome.log.events.event == "not_finite"]
    assert events["round"].tolist() == [0, 1] and events["columns"].tolist() == [["loss", "val_loss"]] * 2
    assert events["reason"].iloc[0].startswith("loss = nan, val_loss = nan: null in the log")
    assert outcome.summary["not_finite"] == "loss, val_loss" and outcome.summary["loss"] is None
    assert outcome.summary["status"] == "completed" and all(v.isfinite().all() for v in outcome.model.values())
    assert "NaN" not in (outcome.log.path / "rounds.jsonl").read_text()


def test_clients_are_an_event_and_in_the_summary(tmp_path: Path) -> None:
    """Inputs above 1 are those of clients 2 and 3, of whom the last never trains; the test set has none of them."""
    settings = {"partition": {"name": "natural", "held_out": 0.2}, "personalize_steps": 1, "failures": "tolerate:0.9"}
    outcome = run_with(1.0, tmp_path, **settings, holdout_clients=1)
    [event] = outcome.log.events[outcome.log.events.event == "not_finite"].to_dict("records")
    assert event["clients"] == [2, 3] and {"personal_loss_before", "unseen_loss_before"} <= set(event["columns"])
    assert outcome.summary["not_finite"] == ", ".join(event["columns"])
    assert outcome.log.rounds["loss"].notna().all() and outcome.summary["personal_loss"] is not None


@pytest.mark.parametrize("numbers", [{"loss": 0.5, "accuracy": None, "digest": "nan", "steps": 3}, {}])
def test_finite_numbers_are_no_event(numbers: dict[str, Any]) -> None:
    events: list[object] = []
    not_finite.report(lambda *args, **facts: events.append(facts), numbers)
    failed = Exchange(1, "personal", [], {}, failures=[(0, "RuntimeError: loss is nan and more"), (1, "no reply came")])
    not_finite.report_clients(lambda *args, **facts: events.append(facts), failed)
    assert events == []
