"""Held-out samples are evaluated all at once or each alone: a run's figures, its summary, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from experiments.run import Outcome, from_arrays, run
from fl_sim import rng
from fl_sim.errors import ConfigError


def network(norm: nn.Module) -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2))


def ran(out: Path, norm: nn.Module, **more: Any) -> Outcome:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(48, 3)), np.arange(48) % 2
    task = from_arrays(x, y, x_test=x[:4], y_test=y[:4])
    settings = {"rounds": 1, "clients": 4, "holdout_clients": 2, "partition.held_out": 0.5, "personalize_steps": 1}
    outcome = run(task=task, model=network(norm), dtype="float64", out=str(out), **{**settings, **more})
    assert isinstance(outcome, Outcome)
    return outcome


def test_the_figures_are_of_each_query_alone_and_the_summary_says_so(tmp_path: Path) -> None:
    """One step of FedAvg's fine-tuning on an unseen client's training part, then each held-out sample beside it."""
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    alone = ran(tmp_path, norm, personalize_queries="alone", personalize_lr=0.3)
    together = ran(tmp_path, norm, personalize_lr=0.3)
    assert (alone.summary["personal_queries"], together.summary["personal_queries"]) == ("alone", "together")
    assert alone.summary["digest"] == together.summary["digest"]  # of training nothing changes
    assert alone.summary["unseen_loss"] != together.summary["unseen_loss"]
    assert alone.summary["personal_loss"] != together.summary["personal_loss"]


def test_it_is_refused_where_each_sample_is_alone_anyway(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="personalize_queries = 'alone': does nothing here: .* normalises by no batch"
    ):
        ran(tmp_path, nn.LayerNorm(4), personalize_queries="alone")
    assert ran(tmp_path, nn.LayerNorm(4)).summary["personal_queries"] is None
    unasked = ran(tmp_path, nn.BatchNorm1d(4, track_running_stats=False), personalize_steps=0)
    assert unasked.summary["personal_queries"] is None
