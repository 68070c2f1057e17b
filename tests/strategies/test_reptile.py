"""Reptile by hand; with epsilon 1 it is FedAvg."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.fedavg import FedAvg
from strategies.reptile import Reptile

STEP = {"local.lr": 0.5, "local.batch_size": 0}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_epsilon_1_is_fedavg_at_equal_weighting(smooth: Any, engine: str) -> None:
    settings = {"local.epochs": 2, "local.batch_size": 5, "local.momentum": 0.9}
    plain = FedAvg()
    plain.weighting = "uniform"
    models = [
        smooth.train(strategy, settings, rounds=3, engine=engine).model
        for strategy in (Reptile(epsilon=1.0), plain, FedAvg())
    ]
    assert tree.digest(models[0]) == tree.digest(models[1]) != tree.digest(models[2])


def test_the_server_goes_a_part_of_the_way_to_the_plain_mean(targets: Any) -> None:
    # w = 2; the adapted models are the clients' means, 4 and 8, whatever their sizes: mean 6; 2 + 1/4 (6 - 2) = 3.
    trained = targets([[4.0], [7.0, 8.0, 9.0]]).train(Reptile(epsilon=0.25), STEP, {"w": torch.tensor([2.0])})
    assert trained.model["w"].tolist() == [3.0]


@pytest.mark.parametrize(
    "anneal, server_lr, parts",
    [
        ("constant", 1.0, [0.8, 0.8, 0.8, 0.8]),
        ("linear", 1.0, [0.8, 0.6, 0.4, 0.2]),  # 0.8 (1 - (t - 1) / 4) for t = 1 .. 4
        ("linear", 0.5, [0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_epsilon_by_round(targets: Any, anneal: Any, server_lr: float, parts: list[float]) -> None:
    # Every client's adapted model is 1, so that w_t = w_{t-1} + epsilon_t (1 - w_{t-1}).
    strategy = Reptile(epsilon=0.8, anneal=anneal)
    strategy.server_lr = server_lr
    w = 0.0
    for part in parts:
        w += part * (1 - w)
    trained = targets([[1.0], [1.0]]).train(strategy, STEP, rounds=4)
    assert trained.model["w"].item() == pytest.approx(w, rel=1e-12)


def test_it_keeps_partial_work() -> None:
    assert Reptile.partial_work == "keep" and Reptile.weighting == "uniform"


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_round_of_two_clients_and_two_weights_by_hand(lines: Any, engine: str) -> None:
    # w = 0: two steps of 1/4 take the residuals from -4 to -1 and to -9/4, along x = (1, 1) and (1, 0):
    # w_1 = (3/2, 3/2), w_2 = (7/4, 0). Their plain mean is (13/8, 3/4), half of the way (13/16, 3/8).
    settings = {"local.lr": 0.25, "local.steps": 2, "local.batch_size": 0}
    trained = lines.train(Reptile(epsilon=0.5), settings, engine=engine)
    assert trained.model["weight"].tolist() == [pytest.approx([13 / 16, 3 / 8], rel=1e-12)]
