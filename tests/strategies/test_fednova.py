"""FedNova by hand; with equal steps it is FedAvg."""

from typing import Any

import pytest
import torch

from strategies.fedavg import FedAvg
from strategies.fednova import FedNova


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_of_unequal_steps_by_hand(quadratics: Any, engine: str) -> None:
    # Batches of 1, lr 1/2: client 1 (one sample, curvature 1, minimum 1) takes 1 step, client 2 (three samples,
    # curvature 1, minimum 0) takes 3. p = 1/4, 3/4. One step halves the distance from the minimum.
    # Round 1, w = 0: d_1 = 1/2, d_2 = 0; sum p |a| = 1/4 + 9/4 = 5/2; w = 5/2 (1/4 * 1/2) = 5/16.
    # Round 2: client 1: (1 - 5/16) / 2 = 11/32; client 2: (5/16 / 8 - 5/16) / 3 = -35/384;
    # w = 5/16 + 5/2 (11/128 - 35/512) = 5/16 + 45/1024 = 365/1024.
    federation = quadratics([(1, 1), (1, 0)], copies=[1, 3])
    settings = {"local.lr": 0.5, "local.batch_size": 1, "local.epochs": 1}
    trained = federation.train(FedNova(), settings, rounds=2, engine=engine)
    assert float(trained.model["w"]) == pytest.approx(365 / 1024, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_round_of_unequal_epochs_by_hand(quadratics: Any, engine: str) -> None:
    # One sample each, curvature 1, minima 1 and 0, from w = 1/2; client 1 makes one
    # pass, client 2 three. lr 1/2: d_1 = (3/4 - 1/2) / 1 = 1/4; d_2 = (1/16 - 1/2) / 3 = -7/48; mean of |a| = 2;
    # w = 1/2 + 2 * (1/4 - 7/48) / 2 = 29/48. FedAvg gives (3/4 + 1/16) / 2 = 13/32.
    federation = quadratics([(1, 1), (1, 0)])
    settings = {"local.lr": 0.5, "local.epochs_of": "1,3"}
    start = {"w": torch.tensor([0.5], dtype=torch.float64)}
    for strategy, expected in ((FedNova(), 29 / 48), (FedAvg(), 13 / 32)):
        trained = federation.train(strategy, settings, start=start, engine=engine)
        assert float(trained.model["w"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_equal_steps_it_is_fedavg(smooth: Any, momentum: float, engine: str) -> None:
    settings = {"local.lr": 0.1, "local.steps": 3, "local.batch_size": 4, "local.momentum": momentum}
    models = [smooth.train(strategy, settings, rounds=3, engine=engine).model for strategy in (FedAvg(), FedNova())]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=0, atol=1e-12)


def test_the_norm_with_momentum_is_the_sum_of_the_weights_of_gradients(quadratics: Any) -> None:
    # With momentum rho the gradient of step s counts 1 + rho + ... + rho^(tau - 1 - s) times in the update; for
    # tau = 3, rho = 1/2: 7/4 + 3/2 + 1 = 17/4.
    federation = quadratics([(1, 1)])
    settings = {"local.lr": 0.125, "local.steps": 3, "local.momentum": 0.5}
    rule = FedNova()
    seen: list[Any] = []
    step = FedNova.payload_step

    class Seen(FedNova):
        def payload_step(self, model: Any, pooled: Any, server_round: int) -> Any:
            seen.append(float(pooled.payload["steps"]["norm"]))
            return step(self, model, pooled, server_round)

    federation.train(Seen(), settings)
    assert seen == [pytest.approx(17 / 4, rel=1e-12)] and rule.reply_kind == "update"


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_norm_keeps_its_digits_in_float32_where_momentum_is_near_1(targets: Any, engine: str) -> None:
    # Steps 1 and 3, p = 1/4 and 3/4: (1 + 3 (1 + (1 + rho) + (1 + rho + rho^2))) / 4. In float32 the closed form is
    # twice a difference of nearly equal numbers, divided by 1 - rho: it was 2.4 times as large for one step.
    rho, seen = 0.9999, []

    class Seen(FedNova):
        def payload_step(self, model: Any, pooled: Any, server_round: int) -> Any:
            seen.append(float(pooled.payload["steps"]["norm"]))
            return super().payload_step(model, pooled, server_round)

    settings = {"local.lr": 0.1, "local.batch_size": 1, "local.momentum": rho}
    targets([[1.0], [1.0] * 3], dtype=torch.float32).train(Seen(), settings, engine=engine)
    assert seen == [pytest.approx((10 + 6 * rho + 3 * rho**2) / 4, rel=1e-6)]
