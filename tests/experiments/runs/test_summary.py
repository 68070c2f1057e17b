"""The summary of a fork counts rounds to the target as the tables do."""

from pathlib import Path
from typing import Any

import pytest

from experiments import analysis
from experiments.run import Outcome, run
from fl_sim import load


def go(out: Path, **settings: Any) -> Outcome:
    small = {"task": "digits", "model": "lr", "clients": 4, "local": {"steps": 1}, "engine": "loop", "out": out}
    found = run(**{**small, "checkpoint_every": 1, "checkpoint_keep": 0, **settings})
    assert isinstance(found, Outcome)
    return found


@pytest.mark.parametrize("evaluate_every, first", [(1, 1), (3, 3)])
def test_rounds_to_target_of_a_fork_are_those_that_the_analysis_counts(
    evaluate_every: int, first: int, tmp_path: Path
) -> None:
    """Its original reached the target in round 0; the fork's own log begins with round 1."""
    base = go(tmp_path, rounds=1, target=0.01)
    assert base.summary["rounds_to_target"] == 0
    other = {"fork": f"{base.summary['run_dir']}@1", "rounds": 3, "evaluate_every": evaluate_every, "target": 0.01}
    folder = go(tmp_path / "fork", **other).summary["run_dir"]
    log = load(folder)
    assert log.summary["rounds_to_target"] == analysis.to_target(log, 0.01).rounds == first
    assert analysis.outcome(log)["rounds_to_target"] == first
