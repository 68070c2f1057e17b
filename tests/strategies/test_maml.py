"""Federated MAML on quadratics in closed form, against autograd through the inner loop, and its splits."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_sim import tree
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.learning.settings import Local
from strategies.base.meta_learning.meta_gradients import split
from strategies.maml import MAML


@pytest.mark.parametrize(
    "inner_steps, order, expected",
    [
        # l(w) = mean (w x - y)^2. Support x = (1, 2), y = (2, 0): gradient 5 w - 2, second derivative 5.
        # Query x = 3, y = 1: gradient 18 w - 6. w = 1, inner lr 1/10: theta_1 = 1 - 0.3 = 0.7, query gradient 6.6;
        # theta_2 = 0.7 - 0.15 = 0.55, query gradient 3.9.
        (1, 1, 6.6),
        (1, 2, 3.3),  # times d theta_1 / d w = 1 - 0.1 * 5 = 1/2
        (2, 1, 3.9),
        (2, 2, 0.975),  # times 1/4
    ],
)
def test_the_meta_gradient_of_a_quadratic(
    federation: Any, batch_of: Any, inner_steps: int, order: Any, expected: float
) -> None:
    loss = federation(nn.Linear(1, 1, bias=False), [([[1.0]], [[1.0]])]).loss
    support, query = batch_of([[1.0], [2.0]], [[2.0], [0.0]]), batch_of([[3.0]], [[1.0]])
    model = {"weight": torch.ones(1, 1, dtype=torch.float64)}
    rule = MAML(inner_lr=0.1, inner_steps=inner_steps, order=order)
    reply, _, metrics = rule.local_update(
        model, {}, {"support": [support] * inner_steps, "query": [query]}, loss, Local()
    )
    assert reply["weight"].item() == pytest.approx(expected, rel=1e-12)
    adapted = {1: 0.7, 2: 0.55}[inner_steps]
    assert metrics["loss"].item() == pytest.approx((3 * adapted - 1) ** 2, rel=1e-12)  # of the adapted model, on query


@pytest.mark.parametrize("order", [1, 2])
def test_the_meta_gradient_of_a_network_is_autograds(smooth: Any, batch_of: Any, order: Any) -> None:
    x, y = smooth.loss.task.train["x"], smooth.loss.task.train["y"]
    support = [batch_of(x[i : i + 6], y[i : i + 6]) for i in (0, 6, 12)]
    query, model = batch_of(x[20:40], y[20:40]), smooth.loss.initial()
    batches = {"support": support, "query": [query]}
    reply, _, _ = MAML(inner_lr=0.3, inner_steps=3, order=order).local_update(model, {}, batches, smooth.loss, Local())

    start = {k: v.clone().requires_grad_() for k, v in model.items()}
    theta = start
    for batch in support:
        grads = torch.autograd.grad(smooth.loss(theta, batch), list(theta.values()), create_graph=order == 2)
        theta = {k: v - 0.3 * g for (k, v), g in zip(theta.items(), grads, strict=True)}
    theta = theta if order == 2 else {k: v.detach().requires_grad_() for k, v in theta.items()}
    expected = torch.autograd.grad(smooth.loss(theta, query), list(start.values() if order == 2 else theta.values()))
    for g, e in zip(reply.values(), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-13)
    assert float(tree.norm(reply)) > 0.05


def test_inner_lr_0_gives_the_gradient_on_query_at_either_order(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    query = batch_of(x[5:25], y[5:25])
    plain, _, _ = smooth.loss.gradient(model, query)
    for order in (1, 2):
        rule = MAML(inner_lr=0.0, order=order)  # type: ignore[arg-type]
        reply, _, _ = rule.local_update(
            model, {}, {"support": [batch_of(x[:5], y[:5])], "query": [query]}, smooth.loss, Local()
        )
        assert all(torch.allclose(reply[k], plain[k], rtol=0, atol=1e-14) for k in plain)


@pytest.mark.parametrize("order, expected", [(1, 1.0), (2, 0.5)])
def test_the_server_steps_along_the_plain_mean(targets: Any, order: Any, expected: float) -> None:
    # l = (w - t)^2, w = 0, inner lr 1/4: theta = t / 2, gradient there -t; order 2 times 1 - 2/4 = 1/2.
    # Clients t = 1 (2 samples) and t = 3 (10 samples): the plain mean is -2; outer lr 1/2 goes to 1, or 1/2.
    # Weighted by samples the mean would be -2.67.
    strategy = MAML(inner_lr=0.25, order=order, outer_lr=0.5)
    trained = targets([[1.0] * 2, [3.0] * 10]).train(strategy, {"local.batch_size": 4})
    assert trained.model["w"].item() == pytest.approx(expected, rel=1e-12)


def test_the_servers_optimizers_by_hand() -> None:
    model, gradient = {"w": torch.tensor([1.0, 1.0]), "counter": torch.tensor(5)}, {"w": torch.tensor([4.0, -0.01])}
    sgd = MAML(outer_lr=0.1)
    sgd.server_lr = 2.0
    assert sgd.server_step(model, gradient, 1)["w"].tolist() == pytest.approx([0.2, 1.002])  # w - 2 * 0.1 g
    adam = MAML(optimizer="adam", outer_lr=0.1)
    first = adam.server_step(model, gradient, 1)
    assert first["w"].tolist() == pytest.approx([0.9, 1.1], abs=1e-6)  # Adam's first step is the sign of g
    assert int(first["counter"]) == 5
    # A second step along -g: m = 0.9 * 0.1 g - 0.1 g = -0.01 g, over 1 - 0.9^2 = 0.19;
    # v = 0.001 g^2 * 1.999, over 1 - 0.999^2 = 0.001999: the step is 0.1 * (-0.01 / 0.19) sign(g), so that w moves back
    # by 0.00526.
    second = adam.server_step(first, tree.scale(gradient, -1.0), 2)
    assert (second["w"] - first["w"]).tolist() == pytest.approx([0.1 * 0.01 / 0.19, -0.1 * 0.01 / 0.19], rel=1e-3)


@pytest.mark.parametrize("n, sizes", [(1, (1, 1)), (2, (1, 1)), (3, (1, 2)), (9, (4, 5)), (10, (5, 5))])
def test_support_and_query_are_halves_the_odd_one_to_query(n: int, sizes: tuple[int, int]) -> None:
    support, query = split(n, 7)
    assert (len(support), len(query)) == sizes
    assert sorted({*support, *query}) == list(range(n))
    assert n == 1 or not set(support) & set(query)  # a lone sample serves as both


@pytest.mark.parametrize(
    "n, support, query, sizes",
    [(50, 10, 0, (10, 40)), (50, 0, 10, (40, 10)), (50, 10, 15, (10, 15)), (2, 1, 1, (1, 1)), (11, 10, 0, (10, 1))],
)
def test_support_and_query_have_the_sizes_that_are_set(
    n: int, support: int, query: int, sizes: tuple[int, int]
) -> None:
    first, second = split(n, 7, support, query)
    assert (len(first), len(second)) == sizes and len({*first, *second}) == sum(sizes)
    with pytest.raises(ValueError, match=r"strategy\.\w+ = \d+: support and query need \d+ samples, a client has 1"):
        split(1, 7, support, query)


def test_the_outer_step_falls_linearly_to_zero() -> None:
    # outer_lr 0.1 over 4 rounds: steps .1, .075, .05, .025 along g = 1
    model, gradient = {"w": torch.tensor(1.0, dtype=torch.float64)}, {"w": torch.tensor(1.0, dtype=torch.float64)}
    strategy = MAML(outer_lr=0.1, anneal="linear")
    strategy.rounds = 4
    steps = [1.0 - strategy.server_step(model, gradient, t)["w"].item() for t in (1, 2, 3, 4)]
    assert steps == pytest.approx([0.1, 0.075, 0.05, 0.025], rel=1e-12)
    assert strategy.scheduled == "strategy.anneal" and MAML().scheduled == ""
    assert MAML(outer_lr=0.1).server_step(model, gradient, 4)["w"].item() == pytest.approx(0.9, rel=1e-12)


def test_splits_are_keyed_by_round_and_client_and_each_stream_stays_in_its_half() -> None:
    rule, local = MAML(inner_steps=4), Local(batch_size=3)

    def parts(server_round: int, client: int) -> tuple[frozenset[int], frozenset[int]]:
        streams = rule.streams(Sizes(20, 5), local, Draw(0, server_round, client))
        assert [len(b) for b in streams["support"]] == [3, 3, 3, 1] and [len(b) for b in streams["query"]] == [
            3
        ]  # 10 of 20: 3 + 3 + 3 + 1
        support, query = split(20, Draw(0, server_round, client)("split"))
        assert set(np.concatenate(streams["support"])) <= set(support) and set(streams["query"][0]) <= set(query)
        return frozenset(support.tolist()), frozenset(query.tolist())

    assert parts(1, 0) == parts(1, 0)
    assert len({parts(r, c) for r in (1, 2, 3) for c in (0, 1)}) == 6


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_client_with_one_sample_is_defined(targets: Any, order: Any, engine: str) -> None:
    # Its sample is support and query: w = 0, t = 1, inner lr 1/4: theta = 1/2, gradient -1, or -1/2; outer lr 1.
    trained = targets([[1.0]]).train(MAML(inner_lr=0.25, order=order, outer_lr=1.0), {}, engine=engine)
    assert trained.model["w"].item() == pytest.approx(1.0 if order == 1 else 0.5)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("order, expected", [(1, [5 / 4, 1 / 2]), (2, [13 / 16, 1 / 4])])
def test_a_round_of_two_clients_and_two_weights_by_hand(lines: Any, engine: str, order: Any, expected: Any) -> None:
    # w = 0: both residuals are -4; after the inner step of 1/4 they are -2 and -3. Gradients there: (1, 1) * -2 and
    # (1, 0) * -3. Order 2 multiplies by I - x x^T / 4, which x has as an eigenvector: by 1/2 and by 3/4.
    # Means: (-5/2, -1), or ((-1 - 9/4) / 2, -1/2) = (-13/8, -1/2). The server's step is 1/2 of that.
    strategy = MAML(inner_lr=0.25, outer_lr=0.5, order=order)
    trained = lines.train(strategy, {"local.batch_size": 0}, engine=engine)
    assert trained.model["weight"].tolist() == [pytest.approx(expected, rel=1e-12)]
