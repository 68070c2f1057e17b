"""Runs that end early and go on: what had ended a run ends it again, and its log is that of an undisturbed run."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.run import Outcome, main, run
from fl_sim.logs.round_columns import repeatable

SMALL: dict[str, Any] = {
    **{"task": "synthetic", "clients": 4, "model": "lr", "engine": "loop", "checkpoint_every": 1, "quiet": True},
    **{"local.lr": 0.1, "partition.held_out": 0.2},
}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of rounds.jsonl, without times."""
    every = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [repeatable(line) for line in every]


def trained(out: Path, **settings: Any) -> Path:
    outcome = run(**{**SMALL, **settings}, out=out)
    assert isinstance(outcome, Outcome)
    return Path(str(outcome.summary["run_dir"]))


def went_on(folder: Path, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(lines, summary) of a run after ``--resume``."""
    assert main(["--resume", str(folder), *words, "--quiet"]) == 0
    return lines(folder), json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    "stop, reason", [({"stop.target": 0.8}, "stop.target = 0.8"), ({"stop.patience": 1}, "stop.patience = 1")]
)
def test_a_run_that_was_killed_while_it_ended_ends_at_once(stop: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Its last line meets the rule, and there is no summary: another round would be one too many.

    At a learning rate of next to nothing no evaluation is better than the first.
    """
    still = {"local.lr": 1e-30} if "stop.patience" in stop else {}
    folder = trained(tmp_path, rounds=5, **stop, **{"stop.on": "test", "validation": 0.1}, **still, evaluate_every=1)
    ended = lines(folder)
    assert 2 <= len(ended) < 6  # a checkpoint holds its last round
    (folder / "summary.json").unlink()
    (folder / "checksums.json").unlink()
    again, summary = went_on(folder)
    assert again == ended and str(summary["stopped"]).startswith(reason) and summary["rounds"] == ended[-1]["round"]


def test_a_digest_that_only_the_end_had_asked_for_is_not_in_the_log_of_a_longer_run(tmp_path: Path) -> None:
    """Every second round has a digest; that of round 3 is there where the run ends in it, and gone where it goes on."""
    words = {"digest_every": 2, "evaluate_every": 5}
    whole = lines(trained(tmp_path / "whole", rounds=5, **words))
    assert [bool(line["digest"]) for line in whole] == [True, False, True, False, True, True]
    folder = trained(tmp_path / "short", rounds=3, **words)
    ended = lines(folder)
    assert ended[-1]["digest"] and ended[:3] == whole[:3]
    again, summary = went_on(folder, "--rounds", "5")
    assert again == whole and summary["digest"] == whole[-1]["digest"]
