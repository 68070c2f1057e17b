"""The progress of a run where stderr is no terminal: plain lines, at most one in some seconds, and one at the end."""

from typing import Any, cast

import pytest

from experiments.config.recipe_files import make
from experiments.runs import progress
from experiments.runs.progress import Progress
from fl_sim import Run
from tests.experiments.config import tiny_world


class Begun:
    """A run that goes on after two rounds."""

    round = 2


def test_plain_lines_without_carriage_returns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 100.0, 102.0, 104.0, 112.0, 114.0])  # made, begun, then four rounds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    world = {"task": f"{tiny_world.__name__}:tiny", "partition": "natural", "model": f"{tiny_world.__name__}:linear"}
    shown, run = Progress(make(rounds=6, **world)), cast(Run, Begun())
    shown.on_run_start(run)
    for number in (3, 4, 5, 6):
        row: dict[str, Any] = {"round": number, "accuracy": 0.5, "loss": 1.25, "completed": 3, "failed": number == 5}
        shown.on_round_end(run, row)
    shown.on_run_end(run)
    # 3 clients in 2 s; then 9 in 12 s, one failed: 3 rounds in 12 s, one is left; then 12 in 14 s
    assert capsys.readouterr().err.splitlines() == [
        "fedavg seed 0: round 3 of 6, accuracy 0.500, loss 1.250, clients/s 1.5, 6 s left",
        "fedavg seed 0: round 5 of 6, accuracy 0.500, loss 1.250, clients/s 0.8, failed 1, 4 s left",
        "fedavg seed 0: round 6 of 6, accuracy 0.500, loss 1.250, clients/s 0.9, failed 1, 0 s left",
    ]
