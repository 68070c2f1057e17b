"""FedAvg against torch.optim, and by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fl_sim import rng, tree
from fl_sim.blocks.plan import plan_blocks
from fl_sim.blocks.resolve import resolve
from strategies.fedavg import FedAvg

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd momentum weight_decay": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adam weight_decay": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.01),
    "adamw weight_decay": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.01),
}


def network() -> nn.Module:
    with rng.keyed_globals(1):
        return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["float32", "float64"])
def test_one_client_and_one_epoch_is_torch_optim(
    federation: Any, name: str, clip_norm: float, dtype: torch.dtype, close: float, engine: str
) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 5)), draw.integers(0, 3, 30)  # batches of 8, 8, 8, 6
    one = federation(network(), [(x, y)], dtype)
    settings: dict[str, Any] = {
        "local.optimizer": name.split()[0],
        "local.lr": 0.05,
        "local.batch_size": 8,
        "local.clip_norm": clip_norm,
    }
    settings |= {"local.momentum": 0.9} if "momentum" in name else {}
    settings |= {"local.weight_decay": 0.01} if "weight_decay" in name else {}
    trained = one.train(FedAvg(), settings, engine=engine)

    module = network().to(dtype)
    optimizer = OPTIMIZERS[name](module.parameters())
    message = {**settings, "server-round": 1, "seed": 0}
    [plan] = plan_blocks(one.learner, "train", [(0, 0, message)], {}, 1)
    [job] = resolve(plan, one.learner, {})[0].jobs
    losses = []
    for positions in job.streams["train"]:
        optimizer.zero_grad()
        loss = F.cross_entropy(module(torch.tensor(x[positions], dtype=dtype)), torch.tensor(y[positions]))
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer.step()
        losses.append((loss.item(), len(positions)))
    for key, value in module.state_dict().items():
        torch.testing.assert_close(trained.model[key], value, rtol=0, atol=close)
    assert len(losses) == 4 and sorted(np.concatenate(job.streams["train"])) == list(range(30))
    assert trained.rows[1]["train_loss"] == pytest.approx(sum(loss * n for loss, n in losses) / 30, rel=1e-5)


@pytest.mark.parametrize(
    "weighting, server_lr, expected", [("examples", 1.0, 1.0), ("uniform", 1.0, 2.0), ("examples", 0.5, 0.5)]
)
def test_the_mean_by_hand(targets: Any, weighting: Any, server_lr: float, expected: float) -> None:
    # w = 0; one step of lr 1/2 on all samples ends at their mean: 4 for the client of one sample, 0 for that of three.
    # By examples (1 * 4 + 3 * 0) / 4 = 1, uniform (4 + 0) / 2 = 2; half a server step from 0 toward 1 is 1/2.
    strategy = FedAvg()
    strategy.weighting, strategy.server_lr = weighting, server_lr
    trained = targets([[4.0], [1.0, 0.0, -1.0]]).train(strategy, {"local.lr": 0.5, "local.batch_size": 0})
    assert trained.model["w"].tolist() == [pytest.approx(expected, abs=1e-15)]


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_identical_clients_are_any_one_of_them(federation: Any, weighting: Any) -> None:
    draw = np.random.default_rng(0)
    data = draw.normal(size=(12, 5)), draw.integers(0, 3, 12)
    settings = {
        "local.epochs": 3,
        "local.batch_size": 0,
        "local.momentum": 0.9,
    }  # whole batches: the draws of order do not matter
    strategy = FedAvg()
    strategy.weighting = weighting
    alone = federation(network(), [data]).train(FedAvg(), settings, rounds=2)
    many = federation(network(), [data] * 5).train(strategy, settings, rounds=2)
    for key, value in alone.model.items():
        torch.testing.assert_close(many.model[key], value, rtol=0, atol=1e-12)
    assert float(tree.norm(tree.sub(many.model, federation(network(), [data]).loss.initial()))) > 0.1


@pytest.mark.parametrize(
    "schedule, factors",
    [
        ("constant", [1, 1, 1, 1, 1]),
        # The shares of the run that are done are 0, 1/4, 1/2, 3/4, 1: a tenth from 1/2 on, a hundredth from 3/4.
        ("step", [1, 1, 0.1, 0.01, 0.01]),
        ("cosine", [0.01 + 0.99 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]),  # from 1 to 1/100
    ],
)
def test_learning_rates_by_round(targets: Any, schedule: str, factors: list[float]) -> None:
    # l = w^2 on one client with target 0: each round multiplies w by 1 - 2 lr_t.
    trained = targets([[0.0]]).train(
        FedAvg(), {"local.lr": 0.1, "local.lr_schedule": schedule}, {"w": torch.ones(1)}, rounds=5
    )
    expected = math.prod(1 - 2 * 0.1 * factor for factor in factors)
    assert float(trained.model["w"]) == pytest.approx(expected, rel=1e-12)


def test_weight_decay_and_momentum_by_hand(targets: Any) -> None:
    # w = 1, target 0, lr 0.1, decay 0.5, momentum 0.9:
    # b1 = 2 + 0.5 = 2.5, w = 0.75; b2 = 0.9 * 2.5 + 1.5 + 0.375 = 4.125, w = 0.3375.
    settings = {"local.lr": 0.1, "local.weight_decay": 0.5, "local.momentum": 0.9, "local.epochs": 2}
    trained = targets([[0.0]]).train(FedAvg(), settings, {"w": torch.ones(1)})
    assert float(trained.model["w"]) == pytest.approx(0.3375, rel=1e-12)


def test_a_cohort_is_a_keyed_sample_without_repetition(targets: Any) -> None:
    def cohorts(seed: int) -> list[tuple[int, ...]]:
        strategy = FedAvg()
        strategy.cohort, strategy.seed = 3, seed
        answered = targets([[float(c)] for c in range(8)]).train(strategy, {}, rounds=6).answered
        return [tuple(sorted(client for _, n, client in answered if n == r)) for r in range(1, 7)]

    assert cohorts(0) == cohorts(0) != cohorts(1)
    assert all(len(set(cohort)) == 3 for cohort in cohorts(0)) and len(set(cohorts(0))) > 1
