"""FedDyn by hand; a large alpha keeps the model."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.feddyn import FedDyn


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str) -> None:
    # alpha 1, one step with lr 1/4, losses w^2 / 2 and 2 (w - 1)^2 / 2, g = 0, h = 0, w = 0.
    # Round 1: client 1: gradient 0, stays 0, g_1 = 0. Client 2: gradient -2, theta = 1/2, g_2 = -1/2.
    #   h = -(0 + 1/2) / 2 = -1/4; w = 1/4 + 1/4 = 1/2.
    # Round 2: client 1: gradient 1/2 - 0 = 1/2, theta = 3/8, g_1 = 1/8. Client 2: gradient -1 + 1/2 = -1/2,
    #   theta = 5/8, g_2 = -5/8. h = -1/4 - (-1/8 + 1/8) / 2 = -1/4; w = 1/2 + 1/4 = 3/4.
    strategy = FedDyn(alpha=1.0)
    federation = quadratics([(1, 0), (2, 1)])
    trained = federation.train(strategy, {"local.lr": 0.25, "local.steps": 1}, rounds=2, engine=engine)
    assert float(trained.model["w"]) == pytest.approx(3 / 4, rel=1e-12)
    assert float(strategy.server_state["h"]["w"]) == pytest.approx(-1 / 4, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_three_rounds_of_some_clients_agree_with_a_plain_loop(smooth: Any, batch_of: Any, engine: str) -> None:
    alpha, lr, steps = 0.3, 0.2, 3
    strategy = FedDyn(alpha=alpha)
    strategy.cohort = 2
    settings = {"local.lr": lr, "local.steps": steps, "local.batch_size": 0}
    trained = smooth.train(strategy, settings, rounds=3, engine=engine)

    w = smooth.loss.initial()
    h, own = tree.zeros(w), {k: tree.zeros(w) for k in range(5)}
    for t in (1, 2, 3):
        models = []
        for k in [k for _, number, k in trained.answered if number == t]:
            theta, rows = dict(w), torch.as_tensor(smooth.partition.client(k))
            batch = batch_of(smooth.loss.task.train["x"][rows], smooth.loss.task.train["y"][rows])
            for _ in range(steps):
                grads, _, _ = smooth.loss.gradient(theta, batch)
                theta = {n: theta[n] - lr * (grads[n] - own[k][n] + alpha * (theta[n] - w[n])) for n in theta}
            own[k] = {n: own[k][n] - alpha * (theta[n] - w[n]) for n in w}
            models.append(theta)
        h = {n: h[n] - alpha / 5 * sum(theta[n] - w[n] for theta in models) for n in w}
        w = {n: sum(theta[n] for theta in models) / 2 - h[n] / alpha for n in w}
    for name, value in w.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)


def test_the_fixed_point_is_the_minimum(quadratics: Any) -> None:
    """As in SCAFFOLD's test: 4/5, where FedAvg stays at .604."""
    settings = {"local.lr": 0.1, "local.steps": 10}
    trained = quadratics([(1, 0), (4, 1)]).train(FedDyn(alpha=1.0), settings, rounds=150)
    assert float(trained.model["w"]) == pytest.approx(0.8, abs=1e-6)


def test_a_large_alpha_keeps_the_clients_at_the_global_model(quadratics: Any) -> None:
    moved = []
    for alpha in (1.0, 1e3, 1e6):
        federation, settings = quadratics([(1, 1), (2, 1)]), {"local.lr": 0.5 / alpha, "local.steps": 50}
        answers = federation.train(FedDyn(alpha=alpha), settings).answers
        moved.append(max(answer.metrics["update_norm"] for answer in answers))
    assert moved[0] > 0.3 and moved[1] < 3e-3 and moved[2] < 3e-6
