"""FedProx: the gradient against autograd of its definition, and by hand."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx


@pytest.mark.parametrize("mu", [0.0, 0.1, 3.0])
def test_the_gradient_is_that_of_the_squared_norm(smooth: Any, batch_of: Any, mu: float) -> None:
    anchor = smooth.loss.initial()
    at = {
        k: v + 0.3 * torch.linspace(-1, 1, v.numel(), dtype=torch.float64).reshape(v.shape) for k, v in anchor.items()
    }
    batch = batch_of(smooth.loss.task.train["x"][:10], smooth.loss.task.train["y"][:10])
    grads, value, _ = FedProx(mu=mu).gradient(at, anchor, batch, smooth.loss)

    leaves = {k: v.clone().requires_grad_() for k, v in at.items()}
    plain = smooth.loss(leaves, batch)
    penalty = sum((v - anchor[k]).square().sum() for k, v in leaves.items())
    expected = torch.autograd.grad(plain + mu / 2 * penalty, list(leaves.values()))
    for g, e in zip(grads.values(), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-12)
    assert float(value) == pytest.approx(plain.item(), rel=1e-12)  # the task's own loss is what is reported


def test_the_pull_grows_with_the_distance(smooth: Any, batch_of: Any) -> None:
    """Its length is mu |w - w_global|: an implementation with the norm, not its square, has mu / 2 at any distance."""
    anchor, batch = smooth.loss.initial(), batch_of(smooth.loss.task.train["x"], smooth.loss.task.train["y"])
    for distance in (0.1, 1.0):
        at = {k: v + distance * tree.scale(anchor, 1 / tree.norm(anchor))[k] for k, v in anchor.items()}
        plain, _, _ = smooth.loss.gradient(at, batch)
        prox, _, _ = FedProx(mu=0.4).gradient(at, anchor, batch, smooth.loss)
        assert float(tree.norm(tree.sub(prox, plain))) == pytest.approx(0.4 * distance, rel=1e-9)


def test_two_steps_by_hand(targets: Any) -> None:
    # w_global = 0, target 1, lr 1/4, mu 2. Step 1: g = 2 (0 - 1) + 2 * 0 = -2, w = 1/2.
    # Step 2: g = 2 (1/2 - 1) + 2 * 1/2 = 0, w = 1/2.
    trained = targets([[1.0]]).train(FedProx(mu=2.0), {"local.lr": 0.25, "local.epochs": 2})
    assert trained.model["w"].tolist() == [0.5]
    # Without the term the second step goes on: w = 1/2 + 1/4 = 3/4.
    assert targets([[1.0]]).train(FedProx(mu=0.0), {"local.lr": 0.25, "local.epochs": 2}).model["w"].tolist() == [0.75]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_mu_0_without_stragglers_is_fedavg(smooth: Any, engine: str) -> None:
    settings = {"local.epochs": 2, "local.batch_size": 5, "local.momentum": 0.9}
    prox, plain = (
        smooth.train(strategy, settings, rounds=3, engine=engine) for strategy in (FedProx(mu=0.0), FedAvg())
    )
    assert tree.digest(prox.model) == tree.digest(plain.model)
    other = smooth.train(FedProx(mu=0.5), settings, rounds=3, engine=engine)
    assert tree.digest(other.model) != tree.digest(plain.model)
