"""ANIL by hand and against autograd, its limit MAML, and the head alone in personal evaluation."""

from typing import Any

import pytest
import torch
from torch import nn

from fl_sim import squared_error
from fl_sim.learning.settings import Local
from strategies.anil import ANIL
from strategies.maml import MAML


class Product(nn.Module):
    """The output h b x of two weights, a body b and a head h."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


@pytest.fixture
def product(federation: Any) -> Any:
    return federation(Product(), [([[1.0]] * 2, [[0.0]] * 2)], loss=lambda o, b: squared_error(o, b) / 2)


@pytest.mark.parametrize(
    "order, expected",
    [
        # l = (h b x - y)^2 / 2, b = 2, h = 1. Support x = 1, y = 6: r = 2 - 6 = -4, dl/dh = r b x = -8.
        # inner_lr 1/8: h' = 1 + 8/8 = 2. Query x = 1, y = 1: r = 2 * 2 - 1 = 3.
        # Order 1: dl/db = r h' = 6, dl/dh' = r b = 6.
        (1, (6.0, 6.0)),
        # Order 2: h' = h - b (h b - 6) / 8, so dh'/dh = 1 - b^2/8 = 1/2, dh'/db = -(2 h b - 6)/8 = 1/4.
        # d/dh = 6 * 1/2 = 3;  d/db = r (h' + b dh'/db) = 3 (2 + 2/4) = 7.5.
        (2, (7.5, 3.0)),
    ],
)
def test_the_meta_gradient_of_two_weights_by_hand(
    product: Any, batch_of: Any, order: Any, expected: tuple[float, float]
) -> None:
    model = {k: torch.full((1, 1), v, dtype=torch.float64) for k, v in (("body.weight", 2.0), ("head.weight", 1.0))}
    batches = {"support": [batch_of([[1.0]], [[6.0]])], "query": [batch_of([[1.0]], [[1.0]])]}
    reply, _, metrics = ANIL(inner_lr=0.125, order=order).local_update(model, {}, batches, product.loss, Local())
    assert (reply["body.weight"].item(), reply["head.weight"].item()) == pytest.approx(expected, rel=1e-12)
    assert metrics["loss"].item() == pytest.approx(4.5, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_the_meta_gradient_of_a_network_is_autograds(smooth: Any, batch_of: Any, order: Any) -> None:
    x, y = smooth.loss.task.train["x"], smooth.loss.task.train["y"]
    support, query = [batch_of(x[i : i + 6], y[i : i + 6]) for i in (0, 6, 12)], batch_of(x[20:40], y[20:40])
    model, batches = smooth.loss.initial(), {"support": support, "query": [query]}
    reply, _, _ = ANIL(inner_lr=0.3, inner_steps=3, order=order).local_update(model, {}, batches, smooth.loss, Local())
    start = {k: v.clone().requires_grad_() for k, v in model.items()}
    head = {k: start[k] for k in ("2.weight", "2.bias")}
    for batch in support:
        grads = torch.autograd.grad(smooth.loss({**start, **head}, batch), [*head.values()], create_graph=order == 2)
        head = {k: v - 0.3 * g for (k, v), g in zip(head.items(), grads, strict=True)}
    expected = torch.autograd.grad(smooth.loss({**start, **head}, query), list(start.values()))
    for g, e in zip(reply.values(), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_everything_in_the_head_is_maml(smooth: Any, order: Any, engine: str) -> None:
    numbers = {"inner_lr": 0.3, "inner_steps": 2, "order": order}
    settings = {"local.batch_size": 4}
    anil, maml = (
        smooth.train(s, settings, rounds=2, engine=engine) for s in (ANIL(head="all", **numbers), MAML(**numbers))
    )
    for name, value in maml.model.items():
        torch.testing.assert_close(anil.model[name], value, rtol=0, atol=1e-13)


def test_an_empty_head_sends_the_gradient_on_query(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    query = batch_of(x[5:25], y[5:25])
    batches = {"support": [batch_of(x[:5], y[:5])], "query": [query]}
    reply, _, _ = ANIL(head="none", order=2).local_update(model, {}, batches, smooth.loss, Local())
    for k, g in smooth.loss.gradient(model, query)[0].items():
        torch.testing.assert_close(reply[k], g, rtol=0, atol=1e-14)


def test_personal_evaluation_adapts_the_head_alone(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    batches = {"train": [batch_of(x[:5], y[:5])] * 3, "own": []}
    tuned = ANIL().adapt(model, {}, {}, batches, smooth.loss, Local(lr=0.5))
    assert {k for k in model if not torch.equal(model[k], tuned[k])} == {"2.weight", "2.bias"}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("order, expected", [(1, (4.75, 4.0)), (2, (5.25, 2.5))])
def test_a_round_of_two_clients_and_two_weights_by_hand(
    federation: Any, engine: str, order: Any, expected: tuple[float, float]
) -> None:
    # As above, b = 2, h = 1, x = 1, inner_lr 1/8; support and query are alike. r = h b - y, h' = h - r b / 8.
    # y = 6: r = -4, h' = 2, r' = -2.  Order 1: (r' h', r' b) = (-4, -4).
    #   Order 2: dh'/dh = 1/2, dh'/db = -(2 h b - y) / 8 = 1/4: d/db = r' (h' + b / 4) = -5, d/dh = r' b / 2 = -2.
    # y = 4: r = -2, h' = 3/2, r' = -1.  Order 1: (-3/2, -2).  Order 2: dh'/db = 0: (-3/2, -1).
    # The plain means are (-11/4, -3) and (-13/4, -3/2); the server's step is 1.
    clients = [([[1.0]] * n, [[y]] * n) for n, y in ((2, 6.0), (6, 4.0))]
    start = {k: torch.full((1, 1), v, dtype=torch.float64) for k, v in (("body.weight", 2.0), ("head.weight", 1.0))}
    world = federation(Product(), clients, loss=lambda outputs, batch: squared_error(outputs, batch) / 2)
    strategy = ANIL(inner_lr=0.125, order=order, outer_lr=1.0)
    trained = world.train(strategy, {"local.batch_size": 0}, start, engine=engine)
    found = trained.model["body.weight"].item(), trained.model["head.weight"].item()
    assert found == pytest.approx(expected, rel=1e-12)
