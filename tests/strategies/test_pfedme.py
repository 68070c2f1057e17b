"""pFedMe by hand, the limits of its Moreau envelope, and what a personal evaluation evaluates."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from fl_sim.errors import ConfigError
from strategies.pfedme import PFedMe

ONE = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_of_two_weights_by_hand(targets: Any, engine: str) -> None:
    # Two weights, loss mean_i (theta_i - y_i)^2 with the gradient theta - y. lam 1, personal_lr 1/4, K = 2, lr 1/2.
    # A personal step: theta <- theta - (theta - y + theta - w) / 4 = theta / 2 + (y + w) / 4.
    # Round 1, w = theta = 0: theta = y/4, then y/8 + y/4 = 3/8 y; w_k = 0 + (3/8 y) / 2 = 3/16 y.
    #   y = (4, 8) and (-2, 0), mean (1, 4): with server_lr 2 w = 2 * 3/16 (1, 4) = (3/8, 3/2).
    # Round 2, theta begins at w: theta = w/2 + (y + w)/4 = (3 w + y)/4, then (3 w + y)/8 + (y + w)/4 = (5 w + 3 y)/8;
    #   w_k = w + (theta - w)/2 = w + 3/16 (y - w); w <- w + 2 * 3/16 (mean y - w)
    #   = (3/8 + 3/8 * 5/8, 3/2 + 3/8 * 5/2) = (39/64, 39/16).
    strategy = PFedMe(lam=1.0, personal_lr=0.25, personal_steps=2)
    strategy.server_lr = 2.0
    trained = targets([[[4.0, 8.0]], [[-2.0, 0.0]] * 3]).train(strategy, ONE, rounds=2, engine=engine)
    assert trained.model["w"].tolist() == pytest.approx([39 / 64, 39 / 16], rel=1e-12)
    w = torch.tensor([3 / 8, 3 / 2], dtype=torch.float64)
    for k, y in enumerate(([4.0, 8.0], [-2.0, 0.0])):
        expected = (5 * w + 3 * torch.tensor(y, dtype=torch.float64)) / 8
        torch.testing.assert_close(trained.states[k]["w"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_personal_model_goes_on_from_one_local_step_to_the_next(quadratics: Any, engine: str) -> None:
    # Loss (theta - 4)^2 / 2, lam 2, personal_lr 1/4, K = 1, lr 1/4: lr * lam = 1/2, two local steps from 0.
    # theta = 0 - (-4 + 0)/4 = 1, w = 0 + 1/2 = 1/2;  theta = 1 - ((1 - 4) + 2 (1 - 1/2))/4 = 3/2, w = 1/2 + 1/2 = 1.
    # A theta that began at w again would be 1/2 - (1/2 - 4)/4 = 11/8.
    strategy = PFedMe(lam=2.0, personal_lr=0.25, personal_steps=1)
    trained = quadratics([(1, 4)]).train(strategy, {"local.lr": 0.25, "local.steps": 2}, engine=engine)
    assert float(trained.states[0]["w"]) == pytest.approx(1.5, rel=1e-12)
    assert float(trained.model["w"]) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("lam", [1e-4, 0.5, 3.0, 1e6])
def test_many_personal_steps_reach_the_minimiser_of_the_envelope(quadratics: Any, lam: float) -> None:
    # l + lam/2 (theta - w)^2 with l = a (theta - m)^2 / 2 is least at (a m + lam w) / (a + lam): m for a small lam, w
    # for a large one. With lr = 1/lam one local step takes w_k to theta.
    start = {"w": torch.tensor(2.0, dtype=torch.float64)}
    strategy = PFedMe(lam=lam, personal_lr=1 / (1.5 * (2 + lam)), personal_steps=60)
    trained = quadratics([(2, 5)]).train(strategy, {**ONE, "local.lr": 1 / lam}, start)
    theta = float(trained.states[0]["w"])
    assert theta == pytest.approx((2 * 5 + lam * 2) / (2 + lam), rel=1e-12)
    assert float(trained.model["w"]) == pytest.approx(theta, rel=1e-12)
    assert abs(theta - (2.0 if lam > 1 else 5.0)) < {1e-4: 2e-4, 1e6: 1e-5}.get(lam, 3)


@pytest.mark.parametrize("lam, step", [(20.0, 0.1), (15.0, 0.2), (2.0, 1.0)])
def test_a_personal_step_that_cannot_contract_is_refused_by_name(lam: float, step: float) -> None:
    said = rf"strategy\.lam = {lam}, strategy\.personal_lr = {step}: their product must be below 2"
    with pytest.raises(ConfigError, match=said):
        PFedMe(lam=lam, personal_lr=step)
    PFedMe(lam=lam, personal_lr=0.99 * step * 2 / max(lam * step, 2))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_theta_is_evaluated_also_of_a_client_that_was_never_sampled(targets: Any, engine: str) -> None:
    # One weight, loss (theta - y)^2, gradient 2 (theta - y); lam 2, personal_lr 1/8, K = 1: from theta = w it moves a
    # quarter of the way to y. One pass of two training samples in batches of one takes two such steps, of which the
    # second is pulled back: theta' = theta - (2 (theta - y) + 2 (theta - w)) / 8.
    strategy = PFedMe(lam=2.0, personal_lr=0.125, personal_steps=1)
    strategy.cohort = 1
    federation = targets([[4.0] * 4, [8.0] * 4], held_out=0.5)
    personal = {"personalize.steps": 1, "personalize.lr": 0.125, "personalize.batch_size": 0}
    trained = federation.train(strategy, {**ONE, "local.lr": 0.125}, evaluate=personal, engine=engine)
    [seen] = trained.states
    w, answers = float(trained.model["w"]), {}
    for a, (kind, _, c) in zip(trained.answers, trained.answered, strict=True):
        answers |= {c: a.metrics} if kind == "evaluate" else {}
    ys = (4.0, 8.0)
    theta = {seen: float(trained.states[seen]["w"]), 1 - seen: w + (ys[1 - seen] - w) / 4}
    assert theta[seen] != w
    for c, y in enumerate(ys):
        assert answers[c]["loss_before"] == pytest.approx((theta[c] - y) ** 2, rel=1e-12)


def test_nothing_but_the_local_model_is_sent_and_all_clients_weigh_the_same(smooth: Any) -> None:
    trained = smooth.train(PFedMe(), {"local.lr": 0.02, "local.batch_size": 4}, rounds=1)
    size = sum(x.numel() for x in trained.model.values()) * 8 * 5
    assert (trained.rows[-1]["bytes_up"], trained.rows[-1]["bytes_down"]) == (size, size)
    assert len(trained.states) == 5 and all(set(s) == set(trained.model) for s in trained.states.values())
    assert tree.norm(tree.sub(trained.model, smooth.loss.initial())) > 0.001
