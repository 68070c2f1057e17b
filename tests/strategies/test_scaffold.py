"""SCAFFOLD by hand, against a plain loop, and where FedAvg drifts."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.fedavg import FedAvg
from strategies.scaffold import Scaffold

STEPS = {"local.lr": 0.1, "local.steps": 10, "local.batch_size": 0}


def uniform() -> FedAvg:
    """FedAvg with equal weights."""
    strategy = FedAvg()
    strategy.weighting = "uniform"
    return strategy


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_fixed_point_is_the_minimum_where_fedavg_drifts(quadratics: Any, engine: str) -> None:
    # Losses w^2 / 2 and 4 (w - 1)^2 / 2. The sum's minimum: w + 4 (w - 1) = 0, so 4/5. A client of curvature a moves
    # its distance from the minimum to (1 - .1 a)^10 of it in 10 steps: p = .9^10 = .34868, q = .6^10 = .00605.
    # FedAvg's fixed point: w = (p w + 1 - q + q w) / 2, so w = (1 - q) / (2 - p - q) = .60414.
    federation = quadratics([(1, 0), (4, 1)])
    drifted = federation.train(uniform(), STEPS, rounds=60, engine=engine).model["w"]
    assert float(drifted) == pytest.approx((1 - 0.6**10) / (2 - 0.9**10 - 0.6**10), abs=1e-9)
    corrected = federation.train(Scaffold(), STEPS, rounds=150, engine=engine).model["w"]
    assert float(corrected) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str) -> None:
    # Two steps with lr 1/4. Round 1, c = c_1 = c_2 = 0, x = 0. Client 1, gradient y: y stays 0, c_1 = 0.
    # Client 2, gradient 2 (y - 1): y: 0, 1/2, 3/4; c_2 = (0 - 3/4) / (2/4) = -3/2. x = 3/8; c = (0 - 3/2) / 2 = -3/4.
    # Round 2. Client 1, gradient y - 0 - 3/4: y: 3/8, 3/8 - (3/8 - 3/4) / 4 = 15/32, 15/32 + 9/128 = 69/128.
    #   c_1+ = 0 + 3/4 + (48/128 - 69/128) / (1/2) = 54/128; dc_1 = 54/128.
    # Client 2, gradient 2 (y - 1) + 3/2 - 3/4: y: 3/8, 3/8 - (-5/4 + 3/4) / 4 = 1/2, 1/2 + 1/16 = 9/16.
    #   c_2+ = -3/2 + 3/4 + (6/16 - 9/16) / (1/2) = -9/8; dc_2 = 3/8.
    # x = (69/128 + 72/128) / 2 = 141/256; c = -3/4 + (54/128 + 48/128) / 2 = -45/128.
    strategy = Scaffold()
    trained = quadratics([(1, 0), (2, 1)]).train(
        strategy, {"local.lr": 0.25, "local.steps": 2}, rounds=2, engine=engine
    )
    assert float(trained.model["w"]) == pytest.approx(141 / 256, rel=1e-12)
    assert float(strategy.server_state["control"]["w"]) == pytest.approx(-45 / 128, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_three_rounds_of_some_clients_agree_with_a_plain_loop(smooth: Any, batch_of: Any, engine: str) -> None:
    strategy = Scaffold()
    strategy.cohort, strategy.server_lr, lr, steps = 3, 0.5, 0.2, 4
    settings = {"local.lr": lr, "local.steps": steps, "local.batch_size": 0}
    trained = smooth.train(strategy, settings, rounds=3, engine=engine)

    x = smooth.loss.initial()
    c, own = tree.zeros(x), {k: tree.zeros(x) for k in range(5)}
    visits = [[k for _, number, k in trained.answered if number == t] for t in (1, 2, 3)]
    assert len({tuple(sorted(v)) for v in visits}) > 1  # clients come back, and others come for the first time
    for chosen in visits:
        models, changes = [], []
        for k in chosen:
            y, part = dict(x), smooth.partition.client(k)
            rows = torch.as_tensor(part)
            batch = batch_of(smooth.loss.task.train["x"][rows], smooth.loss.task.train["y"][rows])
            for _ in range(steps):
                grads, _, _ = smooth.loss.gradient(y, batch)
                y = {n: y[n] - lr * (grads[n] - own[k][n] + c[n]) for n in y}
            new = {n: own[k][n] - c[n] + (x[n] - y[n]) / (steps * lr) for n in x}
            models, changes = [*models, y], [*changes, tree.sub(new, own[k])]
            own[k] = new
        x = {n: x[n] + 0.5 * sum(y[n] - x[n] for y in models) / 3 for n in x}
        c = {n: c[n] + 3 / 5 * sum(change[n] for change in changes) / 3 for n in x}
    for name, value in x.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)
        torch.testing.assert_close(strategy.server_state["control"][name], c[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_client_that_fails_keeps_its_variate_and_is_in_no_mean(quadratics: Any, engine: str) -> None:
    # One step with lr 1/2 from x = 0: gradients of curvature 1 are y - m. Minima 1, 3, 5; c = c_i = 0.
    # Round 1: y = m / 2; c_i = -m; x = 3/2, c = -3. Round 2, the third fails: y = 3/2 - (3/2 - m + m - 3) / 2 = 9/4 for
    # both others; c_i+ = c_i + 3 + (3/2 - 9/4) / (1/2) = -m + 3/2; x = 9/4; c = -3 + 2/3 * 3/2 = -2.
    # Round 3: c_3 is still -5, so that y_3 = 9/4 - (9/4 - 5 + 5 - 2) / 2 = 17/8; y = 9/4 - (9/4 - m + m - 3/2 - 2) / 2
    # = 23/8 for the others. x = (17 + 23 + 23) / 24 = 21/8. c_3+ = -5 + 2 + (18 - 17) / 4 = -11/4, change 9/4; the
    # others' 2 + (18 - 23) / 4 = 3/4. c = -2 + (9/4 + 3/4 + 3/4) / 3 = -3/4.
    class Stumbles(Scaffold):
        def payload_update(self, model: Any, payload: Any, state: Any, batches: Any, loss: Any, local: Any) -> Any:
            new, *rest = super().payload_update(model, payload, state, batches, loss, local)
            fails = (model["w"] == 1.5) & (state["w"] == -5)
            return {"w": torch.where(fails, float("nan"), new["w"])}, *rest

    strategy, federation = Stumbles(), quadratics([(1, 1), (1, 3), (1, 5)])
    settings = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}
    trained = federation.train(strategy, settings, rounds=3, engine=engine, failures="tolerate:0.5")
    assert [row["completed"] for row in trained.rows[1:]] == [3, 2, 3]
    assert float(trained.model["w"]) == pytest.approx(21 / 8, rel=1e-12)
    assert float(strategy.server_state["control"]["w"]) == pytest.approx(-3 / 4, rel=1e-12)


def test_without_drift_it_is_fedavg(quadratics: Any) -> None:
    """Clients with one loss: all control variates stay equal, and correct nothing."""
    federation = quadratics([(2, 1), (2, 1), (2, 1)])
    models = [federation.train(strategy, STEPS, rounds=4).model["w"] for strategy in (uniform(), Scaffold())]
    torch.testing.assert_close(models[0], models[1], rtol=1e-12, atol=0)


def test_bytes_count_the_control_variates(smooth: Any) -> None:
    rows = [smooth.train(strategy, STEPS).rows[-1] for strategy in (uniform(), Scaffold())]
    assert [row["bytes_up"] for row in rows] == [rows[0]["bytes_up"], 2 * rows[0]["bytes_up"]]
    assert [row["bytes_down"] for row in rows] == [rows[0]["bytes_down"], 2 * rows[0]["bytes_down"]]
