"""The best model by the validation samples: which row it is, and which files stay."""

from pathlib import Path

import pytest
import torch

from fl_sim.logs.kept import best_models
from fl_sim.logs.kept.best_models import best_row


def test_the_best_row_is_the_first_of_the_highest_accuracy_else_of_the_lowest_loss() -> None:
    nan = float("nan")
    rows = [{"round": r, "val_accuracy": a, "val_loss": 1.0 - r} for r, a in enumerate([0.1, None, 0.5, nan, 0.5])]
    assert best_row(rows) is rows[2]
    losses = [{"round": r, "val_loss": loss, "loss": -r} for r, loss in enumerate([2.0, 0.5, 0.5, None])]
    assert best_row(losses) is losses[1]
    assert best_row([{"round": 0, "accuracy": 1.0}]) is None
    clients = [
        {"val_accuracy": 0.9, "val_unseen_accuracy": float("nan")},
        {"val_accuracy": 0.1, "val_unseen_accuracy": 0.2},
    ]
    assert best_row(clients) is clients[1]  # validation clients before the validation share


@pytest.mark.parametrize(
    "oldest_checkpoint, kept",
    [(0, [0, 1, 3, 6]), (2, [1, 3, 6]), (3, [3, 6]), (5, [3, 6]), (6, [6])],
)
def test_models_stay_that_a_resumed_run_may_need(tmp_path: Path, oldest_checkpoint: int, kept: list[int]) -> None:
    for server_round in (0, 1, 3, 9):  # 9: of a run that was cut back
        best_models.save(tmp_path, {"w": torch.ones(2)}, server_round, "", dict, 0)
    best_models.save(tmp_path, {"w": torch.full((2,), 6.0)}, 6, "", dict, oldest_checkpoint)
    assert sorted(int(path.stem[-6:]) for path in (tmp_path / "best").iterdir()) == kept
