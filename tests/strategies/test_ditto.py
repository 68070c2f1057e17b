"""Ditto by hand, against a plain loop with partial participation, and its limits."""

from typing import Any

import numpy as np
import pytest
import torch

from fl_sim import tree
from fl_sim.learning.settings import Local
from fl_sim.local import Draw, Sizes
from strategies.ditto import Ditto
from strategies.fedavg import FedAvg
from strategies.local_only import LocalOnly

WHOLE = {"local.lr": 0.2, "local.steps": 4, "local.batch_size": 0}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str) -> None:
    # Losses (w - 4)^2 / 2 and 2 (w + 1)^2 / 2; one step with lr 1/4, lam = 1, begin with w = v_1 = v_2 = 0.
    # Round 1. w_1 = 0 + 4/4 = 1, w_2 = 0 - 2/4 = -1/2; w = 1/4. v is not pulled yet: v_1 = 1, v_2 = -1/2.
    # Round 2, w = 1/4 received. w_1 = 1/4 + (15/4)/4 = 19/16, w_2 = 1/4 - (5/2)/4 = -6/16; w = 13/32.
    #   v_1 = 1 - ((1 - 4) + (1 - 1/4)) / 4 = 25/16;   v_2 = -1/2 - (2 (1/2) + (-1/2 - 1/4)) / 4 = -9/16.
    settings = {"local.lr": 0.25, "local.steps": 1}
    trained = quadratics([(1, 4), (2, -1)]).train(Ditto(lam=1.0), settings, rounds=2, engine=engine)
    assert float(trained.model["w"]) == pytest.approx(13 / 32, rel=1e-12)
    assert [float(trained.states[k]["w"]) for k in (0, 1)] == pytest.approx([25 / 16, -9 / 16], rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_three_rounds_of_some_clients_agree_with_a_plain_loop(smooth: Any, batch_of: Any, engine: str) -> None:
    strategy, lam = Ditto(lam=0.7), 0.7
    strategy.cohort = 2
    trained = smooth.train(strategy, WHOLE, rounds=3, engine=engine)
    w, own = smooth.loss.initial(), {}
    visits = [[k for _, number, k in trained.answered if number == t] for t in (1, 2, 3)]
    assert 2 < len({k for v in visits for k in v}) < 6  # clients come back, and others come for the first time
    for chosen in visits:
        models, sizes = [], []
        for k in chosen:
            rows = torch.as_tensor(smooth.partition.client(k))
            batch = batch_of(smooth.loss.task.train["x"][rows], smooth.loss.task.train["y"][rows])
            y, v = dict(w), dict(own.get(k, w))
            for _ in range(4):
                grads, _, _ = smooth.loss.gradient(y, batch)
                pulled, _, _ = smooth.loss.gradient(v, batch)
                y = {n: y[n] - 0.2 * grads[n] for n in y}
                v = {n: v[n] - 0.2 * (pulled[n] + lam * (v[n] - w[n])) for n in v}
            models, sizes, own[k] = [*models, y], [*sizes, len(rows)], v
        w = {n: sum(s * y[n] for s, y in zip(sizes, models, strict=True)) / sum(sizes) for n in w}
    for name, value in w.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)
    assert set(trained.states) == set(own)
    for k, v in own.items():
        for name, value in v.items():
            torch.testing.assert_close(trained.states[k][name], value, rtol=0, atol=1e-12)


def test_with_lam_0_the_clients_models_are_those_of_local_training(smooth: Any) -> None:
    """All clients take part and take whole batches, so that it does not matter how these are drawn."""
    ditto, local = (smooth.train(strategy, WHOLE, rounds=3) for strategy in (Ditto(lam=0.0), LocalOnly()))
    for k in range(5):
        for name, value in ditto.states[k].items():
            torch.testing.assert_close(local.states[k][f"home::{name}"], value, rtol=0, atol=1e-12)


def test_the_global_model_is_fedavgs_and_nothing_else_is_sent(smooth: Any) -> None:
    settings = {**WHOLE, "local.batch_size": 4}
    plain, ditto = (smooth.train(strategy, settings, rounds=2) for strategy in (FedAvg(), Ditto()))
    assert tree.digest(plain.model) == tree.digest(ditto.model)
    assert [ditto.rows[-1][k] for k in ("bytes_up", "bytes_down")] == [
        plain.rows[-1][k] for k in ("bytes_up", "bytes_down")
    ]


def test_the_personal_batches_are_as_many_and_drawn_apart() -> None:
    streams = Ditto().streams(Sizes(20, 5), Local(epochs=2, batch_size=5), Draw(0, 1, 2))
    own, shared = streams["personal"], streams["train"]
    assert [len(b) for b in own] == [len(b) for b in shared] == [5] * 8
    assert sorted(np.concatenate(own[:4])) == list(range(20))
    assert not np.array_equal(np.concatenate(own), np.concatenate(shared))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_v_is_evaluated_and_w_where_a_client_was_never_sampled(targets: Any, engine: str) -> None:
    # Loss (w - y)^2 with all samples y of a client equal; one step with lr 1/8 moves w by a quarter toward y.
    strategy = Ditto(lam=2.0)
    strategy.cohort = 2
    federation = targets([[4.0] * 4, [8.0] * 4, [12.0] * 4, [16.0] * 4], held_out=0.5)
    trained = federation.train(
        strategy,
        {"local.lr": 0.125, "local.steps": 1},
        unseen=1,
        evaluate={"personalize.steps": 1, "personalize.lr": 0.125},
        engine=engine,
    )
    found = {c: a.metrics for a, (kind, _, c) in zip(trained.answers, trained.answered, strict=True)
             if kind == "evaluate"}  # fmt: skip
    w = float(trained.model["w"])
    models = {c: float(trained.states[c]["w"]) if c in trained.states else w for c in range(4)}
    assert set(found) == {0, 1, 2, 3} and sum(x == w for x in models.values()) == 2
    for c, y in enumerate((4.0, 8.0, 12.0, 16.0)):
        assert found[c]["loss_before"] == pytest.approx((models[c] - y) ** 2, rel=1e-12)
        assert found[c]["loss"] == pytest.approx((0.75 * (models[c] - y)) ** 2, rel=1e-12)
