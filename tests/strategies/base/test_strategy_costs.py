"""What docs/algorithms.md says that a strategy sends and keeps, against runs; every strategy is on the page."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from experiments.config.choices import offered
from fl_sim import rng

PAGE = (Path(__file__).parents[3] / "docs" / "algorithms.md").read_text(encoding="utf-8")
OURS = offered("strategy")
COST = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := line.strip("| ").split("|")) == 6
}
"""Name of a strategy -> the other cells of its row: down, up, gradients, client keeps, server keeps."""


@cache
def _clients() -> list[tuple[Any, Any]]:
    draw = np.random.default_rng(0)
    return [(draw.normal(size=(4, 4)), draw.integers(0, 3, 4)) for _ in range(3)]


@pytest.fixture
def measured(federation: Callable[..., Any]) -> Callable[[str], tuple[float, float, float, float]]:
    """Of two rounds with all clients: bytes down and up, what a client and the server keep, in numbers of the model."""
    with rng.keyed_globals(0):
        network = nn.Sequential(nn.Linear(4, 40), nn.LayerNorm(40), nn.Tanh(), nn.Linear(40, 3))
    three = federation(network, _clients(), outputs=3)
    size = sum(x.numel() for x in three.loss.initial().values())

    def measure(name: str) -> tuple[float, float, float, float]:
        strategy = OURS[name]()
        trained = three.train(strategy, {"local.lr": 0.1}, rounds=2)
        down, up = (
            sum(row.get(k) or 0 for row in trained.rows) / (2 * 3 * 8 * size) for k in ("bytes_down", "bytes_up")
        )
        kept = [sum(x.numel() for x in state.values()) for state in trained.states.values()]
        server = sum(x.numel() for part in strategy.server_state.values() for x in part.values())
        return down, up, max(kept, default=0) / size, server / size

    return measure


def test_every_strategy_has_its_cost_and_a_word_on_when_to_take_it() -> None:
    assert set(COST) == set(OURS)
    words = PAGE.partition("## When to take it")[2]
    assert [name for name in OURS if f"`{name}`" not in words] == []


@pytest.mark.parametrize("name", OURS)
def test_bytes_and_states_are_those_of_a_run(name: str, measured: Callable[[str], tuple[float, ...]]) -> None:
    down, up, _, client, server = COST[name]
    for said, found in zip((down, up, client, server), measured(name), strict=True):
        if said.startswith("< "):
            assert 0 < found < float(said[2:].split()[0])
        else:  # a number of a client, such as FedNova's, is a fiftieth of this model or less
            assert float(said.split()[0]) == pytest.approx(found, abs=0.02)
