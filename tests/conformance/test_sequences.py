"""A task is a tree of tensors, a loss and metrics: sequences run like images, on both engines."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments.run import from_arrays, run


class Bigram(nn.Module):
    """Next-character scores (B, T, K) from the character before: a table."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, characters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T) int64."""
        return self.table(x)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_next_characters(tmp_path, engine) -> None:
    """Each character is followed by the next of five: a table learns that exactly; the loss falls from log 5."""
    text = np.arange(400) % 5
    x = np.stack([text[i : i + 8] for i in range(300)])
    y = np.stack([text[i + 1 : i + 9] for i in range(300)])
    task = from_arrays(x, y, clients=np.arange(300) // 100, outputs=5)
    outcome = run(task=task, model=Bigram(5), rounds=8, engine=engine, local={"lr": 5.0}, out=str(tmp_path))
    rounds = outcome.log.rounds
    assert rounds["accuracy"].iloc[-1] == 1.0 and rounds["loss"].iloc[-1] < 0.1 < rounds["loss"].iloc[0]
    assert outcome.log.events["event"].tolist() == ["start", "model"]  # nothing fell back
