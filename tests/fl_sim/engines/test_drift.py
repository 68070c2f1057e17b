"""Drift and cosine of clients' updates: against the formulas, on both engines, in blocks of any size."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.app import make_app
from fl_sim import Partition, SimulationGrid, from_arrays, run_rounds
from fl_sim.engines.drift import added, merged
from fl_sim.learning.loss import Loss
from fl_sim.wire import records
from strategies.fedavg import FedAvg
from strategies.maml import MAML

SIZES = [2, 3, 5, 6]
"""Samples of the clients, which are their weights."""
LR = 0.3


def of_formula(updates: Tensor, weights: Tensor) -> tuple[float, float]:
    """(drift, cosine) of updates (K, D) with weights (K,)."""
    mean = (weights[:, None] * updates).sum(0) / weights.sum()
    drift = (weights * (updates - mean).square().sum(1)).sum() / weights.sum()
    return float(drift), float(torch.cosine_similarity(updates, mean[None]).mean())


def world() -> tuple[Loss, Partition]:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(sum(SIZES), 3)), np.arange(sum(SIZES)) % 2
    torch.manual_seed(0)
    loss = Loss(nn.Linear(3, 2), from_arrays(x, y, x_test=x, y_test=y), torch.float64)
    return loss, Partition.of(np.split(np.arange(len(y)), np.cumsum(SIZES)[:-1]))


def one_round(engine: str, block_size: int, log_drift: bool = True) -> dict[str, Any]:
    """The row of a round of one full-batch step a client."""
    loss, partition = world()
    grid = SimulationGrid(
        make_app(loss, partition, log_drift=log_drift), len(SIZES), engine=engine, block_size=block_size
    )
    settings = records.config({"local.lr": LR, "local.epochs": 1, "local.batch_size": 0})
    return run_rounds(FedAvg(), grid, records.encode(loss.initial()), 1, train_config=settings).rows[1]


def gradients() -> Tensor:
    """The gradient of each client's loss at the first model (K, D), in plain torch."""
    loss, partition = world()
    first, rows = loss.initial(), []
    for client in range(len(SIZES)):
        leaves = {k: first[k].double().clone().requires_grad_() for k in ("weight", "bias")}
        chosen = torch.from_numpy(np.asarray(partition.client(client)))
        x, y = loss.task.train["x"][chosen].double(), loss.task.train["y"][chosen]
        value = nn.functional.cross_entropy(nn.functional.linear(x, leaves["weight"], leaves["bias"]), y)
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(leaves.values()))]))
    return torch.stack(rows)


@pytest.mark.parametrize("engine, block_size", [("loop", 4), ("loop", 1), ("vmap", 2)])
def test_a_round_has_the_drift_and_cosine_of_the_formulas(engine: str, block_size: int) -> None:
    drift, cosine = of_formula(-LR * gradients(), torch.tensor(SIZES, dtype=torch.float64))
    row = one_round(engine, block_size)
    assert row["drift"] == pytest.approx(drift, rel=1e-9) and row["cosine"] == pytest.approx(cosine, rel=1e-9)


def test_without_the_flag_a_round_has_neither() -> None:
    row = one_round("loop", 2, log_drift=False)
    assert "drift" not in row and "cosine" not in row and row["pool_seconds"] > 0


def test_a_client_that_did_not_move_has_no_direction_and_payloads_do_not_count() -> None:
    updates, weights = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]], dtype=torch.float64), [1.0, 2.0, 1.0]
    replies = {"w": updates, "PAYLOAD::w": updates * 9}
    whole = added(None, replies, weights, {}, MAML(), ["w"])
    assert whole is not None
    # d = (3, 6) / 4; sum n |d_k|^2 / N = (25 + 0 + 4) / 4; |d|^2 = 45 / 16
    numbers = whole.columns()
    assert numbers["drift"] == pytest.approx(29 / 4 - 45 / 16)
    # cos of (3, 4) with (1, 2): 11 / (5 sqrt 5); of (0, 2): 2 / sqrt 5; the second client has none
    assert numbers["cosine"] == pytest.approx((11 / 5 + 2) / 5**0.5 / 2)
    parts = [added(None, {"w": updates[i : i + 1]}, weights[i : i + 1], {}, MAML(), ["w"]) for i in range(3)]
    joined = merged(merged(merged(None, parts[0]), parts[1]), parts[2])
    assert joined is not None and joined.columns() == pytest.approx(numbers)


def test_opposite_updates_have_no_mean_direction_and_no_update_has_no_number() -> None:
    replies = {"w": torch.tensor([[1.0], [-1.0]])}
    opposite = added(None, replies, [2.0, 2.0], {}, MAML(), ["w"])
    assert opposite is not None and opposite.columns() == {"drift": 1.0, "cosine": None}
    assert added(None, {}, [1.0], {}, MAML(), ["w"]) is None
