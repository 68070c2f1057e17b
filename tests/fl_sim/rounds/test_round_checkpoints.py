"""After which rounds a run keeps what it would need to write a checkpoint if it broke off."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.run import run
from fl_sim import Callback, Run, from_arrays
from fl_sim.rounds import checkpoint, round_checkpoints
from strategies.fedavg import FedAvg

X = torch.linspace(-1, 1, 40).reshape(20, 2)


copies: list[int] = []
"""An entry a copy of ``Slow``."""


class Slow:
    """What a strategy holds: a copy of it takes 20 ms."""

    def __deepcopy__(self, memo: Any) -> "Slow":
        time.sleep(0.02)
        copies.append(1)
        return Slow()


@dataclass
class Holds(FedAvg):
    """FedAvg that holds something slow to copy, another in each round."""

    def configure_train(self, server_round: int, *args: Any) -> Any:
        self.held = Slow()
        return super().configure_train(server_round, *args)


class Breaks(Callback):
    """Breaks the run off when round 5 begins."""

    def on_round_start(self, run: Run) -> None:
        if run.round == 5:
            raise KeyboardInterrupt


def kept_after_a_break(folder: Path) -> tuple[int, list[int]]:
    """(copies of what the strategy holds, rounds of the checkpoints) of a run that breaks off after round 4."""
    copies.clear()
    task: dict[str, Any] = {"task": from_arrays(X, (X[:, 0] > 0).long()), "model": torch.nn.Linear(2, 2)}
    with pytest.raises(KeyboardInterrupt):
        run(**task, strategy=Holds(), clients=2, rounds=6, checkpoint_every=100, out=str(folder), callbacks=[Breaks()])
    [found] = folder.iterdir()
    return len(copies), [checkpoint.round_of(path) for path in checkpoint.listed(found)]


def test_a_few_slow_copies_leave_no_round_out(tmp_path: Path) -> None:
    assert kept_after_a_break(tmp_path) == (4, [4])


def test_slow_copies_beyond_their_credit_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 ms are spent by the second copy, or by the first on a busy machine, and rounds add nothing here."""
    monkeypatch.setattr(round_checkpoints, "CREDIT_S", 0.03)
    monkeypatch.setattr(round_checkpoints, "SHARE", 0.0)
    assert kept_after_a_break(tmp_path) in ((1, [1]), (2, [2]))
