"""Tasks with a label at each of six places, of which the third means none, and a model for them."""

from dataclasses import replace

import numpy as np
from torch import nn

from fl_sim import Task, from_arrays, rng


def tags() -> Task:
    """Labels 0..5 at six places: outputs (B, 6, 6) could be read either way."""
    draw = rng.generator(rng.key(0, "tags"))
    x, y = draw.normal(size=(80, 1, 6)), draw.integers(0, 6, (80, 6))
    return from_arrays(x, np.where(y == 0, np.arange(80)[:, None] % 6, y), x_test=x[:8], y_test=y[:8])


def columns() -> Task:
    """The same with a loss that gives a matrix."""
    return replace(tags(), loss=lambda o, b: (o.mean(1) - b["y"]).square(), metrics={})


def net(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Scores of each place in PyTorch's layout, (B, K, T)."""
    return nn.Conv1d(1, outputs, 1)
