"""Meta-SGD by hand and against autograd, its limit MAML, and personal evaluation with the learned rates."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from fl_sim.learning.settings import Local
from strategies.base.round_replies import Pooled
from strategies.maml import MAML
from strategies.metasgd import MetaSGD


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("order", [1, 2])
def test_two_rounds_of_two_weights_by_hand(targets: Any, engine: str, order: Any) -> None:
    # Two weights, loss mean_i (w_i - y_i)^2 with the gradient w - y, of support and query alike, as all samples of a
    # client are equal. theta = w - alpha (w - y): theta - y = (1 - alpha) (w - y) =: (1 - alpha) d.
    # Gradient of alpha: (theta - y) * -(w - y) = -(1 - alpha) d^2.  Of w: (1 - alpha) d, times 1 - alpha in order 2.
    # alpha = 1/2, w = 0; y = (2, 4) and (-4, 0): d = -y, mean d = (1, -2), mean d^2 = (10, 8).
    # outer_lr 1, rates_lr 1/10: alpha <- 1/2 + (1/2) (10, 8) / 10 = (1, 9/10);
    #   w <- -(1/2) (1, -2), or half of it in order 2.
    strategy = MetaSGD(inner_lr=0.5, rates_lr=0.1, outer_lr=1.0, order=order)
    federation = targets([[[2.0, 4.0]] * 2, [[-4.0, 0.0]] * 6])
    first = federation.train(strategy, {"local.batch_size": 0}, engine=engine).model["w"]
    assert first.tolist() == pytest.approx([[-1 / 2, 1], [-1 / 4, 1 / 2]][order - 1], rel=1e-12)
    assert strategy.server_state["rates"]["w"].tolist() == pytest.approx([1, 9 / 10], rel=1e-12)
    # Round 2: alpha_1 = 1 leaves nothing for the first weight (theta = y). The second: 1 - alpha = 1/10.
    # Order 1, w_2 = 1: d = (-3, 1), mean -1, mean d^2 = 5: w_2 = 1 + 1/10, alpha_2 = 9/10 + (1/10) 5 / 10 = 19/20.
    # Order 2, w_2 = 1/2: d = (-7/2, 1/2), mean -3/2, mean d^2 = 25/4: w_2 = 1/2 + 3/200, alpha_2 = 9/10 + 1/16.
    again = MetaSGD(inner_lr=0.5, rates_lr=0.1, outer_lr=1.0, order=order)
    second = federation.train(again, {"local.batch_size": 0}, rounds=2, engine=engine).model["w"]
    assert second.tolist() == pytest.approx([[-1 / 2, 11 / 10], [-1 / 4, 103 / 200]][order - 1], rel=1e-12)
    rates = again.server_state["rates"]["w"].tolist()
    assert rates == pytest.approx([1, [19 / 20, 9 / 10 + 1 / 16][order - 1]], rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_both_meta_gradients_of_a_network_are_autograds(smooth: Any, batch_of: Any, order: Any) -> None:
    x, y = smooth.loss.task.train["x"], smooth.loss.task.train["y"]
    support, query = [batch_of(x[i : i + 6], y[i : i + 6]) for i in (0, 6, 12)], batch_of(x[20:40], y[20:40])
    model, batches = smooth.loss.initial(), {"support": support, "query": [query]}
    rates = {k: torch.linspace(-0.2, 0.5, v.numel(), dtype=v.dtype).reshape(v.shape) for k, v in model.items()}
    rule = MetaSGD(inner_steps=3, order=order)
    reply, _, _, beside = rule.payload_update(model, {"rates": rates}, {}, batches, smooth.loss, Local())
    start, alpha = ({k: v.clone().requires_grad_() for k, v in t.items()} for t in (model, rates))
    theta = start
    for batch in support:
        grads = torch.autograd.grad(smooth.loss(theta, batch), list(theta.values()), create_graph=order == 2)
        theta = {k: v - alpha[k] * g for (k, v), g in zip(theta.items(), grads, strict=True)}
    expected = torch.autograd.grad(smooth.loss(theta, query), [*start.values(), *alpha.values()])
    for g, e in zip([*reply.values(), *beside["rates"].values()], expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-13)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("numbers", [{"order": 1}, {"order": 2}, {"optimizer": "adam", "anneal": "linear"}])
def test_with_rates_that_stay_it_is_maml(smooth: Any, engine: str, numbers: dict[str, Any]) -> None:
    both = {"inner_lr": 0.3, "inner_steps": 2, **numbers}
    fixed, maml = MetaSGD(rates_lr=0.0, **both), MAML(**both)
    meta, plain = (smooth.train(s, {"local.batch_size": 4}, rounds=3, engine=engine) for s in (fixed, maml))
    for name, value in plain.model.items():
        torch.testing.assert_close(meta.model[name], value, rtol=0, atol=1e-12)
    assert all(bool((x == 0.3).all()) for x in fixed.server_state["rates"].values())
    for name, moments in maml.server_state.items():  # the model's moments have MAML's names
        assert tree.norm(tree.sub(fixed.server_state[name], moments)) < 1e-12


def test_adam_has_moments_for_the_rates_of_their_own() -> None:
    # Adam's first step is the sign of the gradient, with either rate.
    strategy = MetaSGD(inner_lr=0.5, optimizer="adam", outer_lr=0.1, rates_lr=0.02)
    model = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    gradients = Pooled({"w": model["w"] * 3}, {"rates": {"w": torch.tensor([-2.0, 4.0], dtype=torch.float64)}}, [])
    new = strategy.payload_step(model, gradients, 1)
    assert new["w"].tolist() == pytest.approx([0.9, 0.9], abs=1e-6)
    assert strategy.server_state["rates"]["w"].tolist() == pytest.approx([0.52, 0.48], abs=1e-6)
    strategy.payload_step(new, gradients, 2)
    assert strategy.server_state["rates"]["w"].tolist() == pytest.approx([0.54, 0.46], abs=1e-6)
    assert set(strategy.server_state) == {"rates", "rates.first", "rates.second", "first", "second"}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_personal_evaluation_steps_with_the_learned_rates(targets: Any, engine: str) -> None:
    # A client of samples y moves (w - y) to (1 - alpha)^steps (w - y), whatever personalize.lr is.
    strategy = MetaSGD(inner_lr=0.1, rates_lr=0.05, outer_lr=1.0)
    federation = targets([[[2.0, 4.0]] * 4, [[-4.0, 0.0]] * 4], held_out=0.5)
    personal = {"personalize.steps": 3, "personalize.lr": 7.0}
    trained = federation.train(strategy, {"local.batch_size": 0}, unseen=1, evaluate=personal, engine=engine)
    w, alpha = trained.model["w"], strategy.server_state["rates"]["w"]
    assert not torch.equal(alpha, torch.full_like(alpha, 0.1))
    answers = zip(trained.answers, trained.answered, strict=True)
    found = {c: a.metrics for a, (kind, _, c) in answers if kind == "evaluate"}
    for c, y in enumerate(([2.0, 4.0], [-4.0, 0.0])):
        d = w - torch.tensor(y, dtype=torch.float64)
        assert found[c]["loss_before"] == pytest.approx(float(d.square().mean()), rel=1e-12)
        assert found[c]["loss"] == pytest.approx(float(((1 - alpha) ** 3 * d).square().mean()), rel=1e-12)


def test_bytes_count_the_rates(smooth: Any) -> None:
    rows = [smooth.train(strategy, {}).rows[-1] for strategy in (MAML(), MetaSGD())]
    for name in ("bytes_up", "bytes_down"):
        assert rows[1][name] == 2 * rows[0][name]
