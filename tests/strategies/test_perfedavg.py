"""Per-FedAvg: quadratics in closed form, inner lr 0, and the finite difference against the exact product."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_sim import squared_error, tree
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.learning.settings import Local
from strategies.fedavg import FedAvg
from strategies.perfedavg import PerFedAvg


@pytest.mark.parametrize(
    "order, step, expected",
    [
        # l(w) = mean (w x - y)^2. D: x = (1, 2), y = (2, 0): gradient 5 w - 2. D': x = 3, y = 1: gradient 18 w - 6.
        # D'': x = 2: second derivative 8. w = 1, alpha 1/10: u = 1 - 0.3 = 0.7, gradient of D' there 6.6;
        # (1 - 0.1 * 8) 6.6 = 1.32. lr 1/2: 1 - 0.66 = 0.34; without H: 1 - 3.3 = -2.3.
        ("fo", {}, -2.3),
        ("exact", {}, 0.34),
        ("hf", {"hf_step": "fixed"}, 0.34),  # of a quadratic the central difference is exact, whatever the step
        ("hf", {"hf_step": "fixed", "delta": 10.0}, 0.34),
        ("hf", {"hf_step": "scaled"}, 0.34),
    ],
)
def test_a_step_on_a_quadratic(federation: Any, batch_of: Any, order: Any, step: Any, expected: float) -> None:
    loss = federation(nn.Linear(1, 1, bias=False), [([[1.0]], [[1.0]])]).loss
    inner, outer, hessian = (
        batch_of([[1.0], [2.0]], [[2.0], [0.0]]),
        batch_of([[3.0]], [[1.0]]),
        batch_of([[2.0]], [[9.0]]),
    )
    batches = {"train": [outer], "inner": [inner], **({"hessian": [hessian]} if order != "fo" else {})}
    model = {"weight": torch.ones(1, 1, dtype=torch.float64)}
    new, _, metrics = PerFedAvg(inner_lr=0.1, order=order, **step).local_update(model, {}, batches, loss, Local(lr=0.5))
    assert new["weight"].item() == pytest.approx(expected, rel=1e-8 if "scaled" in step.values() else 1e-13)
    assert metrics["loss"].item() == pytest.approx((3 * 0.7 - 1) ** 2, rel=1e-12)  # after the inner step, on D'


@pytest.mark.parametrize("order", ["fo", "hf", "exact"])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_inner_lr_0_is_fedavg_at_equal_weighting_on_the_same_batches(smooth: Any, order: Any, engine: str) -> None:
    settings = {"local.epochs": 2, "local.batch_size": 5, "local.momentum": 0.9, "local.weight_decay": 0.01}
    plain = FedAvg()
    plain.weighting = "uniform"
    here, there = (
        smooth.train(s, settings, rounds=3, engine=engine).model for s in (PerFedAvg(inner_lr=0.0, order=order), plain)
    )
    if (
        engine == "loop"
    ):  # under vmap the first inner step is another matrix product than FedAvg's, of one model for all clients
        assert tree.digest(here) == tree.digest(there)
    assert float(tree.norm(tree.sub(here, there))) < 1e-14 * float(tree.norm(there))
    other = smooth.train(PerFedAvg(inner_lr=0.1, order=order), settings, rounds=3, engine=engine).model
    assert float(tree.norm(tree.sub(other, there))) > 1e-3 * float(tree.norm(there))


def test_the_finite_difference_tends_to_the_exact_product(smooth: Any, batch_of: Any) -> None:
    """Central differences: the error falls with the square of delta until rounding (about 1e-16 / delta) dominates."""
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    batch, vector = batch_of(x[:30], y[:30]), smooth.loss.gradient(model, batch_of(x[30:], y[30:]))[0]
    exact = PerFedAvg(order="exact").hessian_product(model, vector, batch, smooth.loss)

    def error(delta: float, kind: Any = "fixed") -> float:
        rule = PerFedAvg(order="hf", hf_step=kind, delta=delta)
        return float(tree.norm(tree.sub(rule.hessian_product(model, vector, batch, smooth.loss), exact)))

    assert error(1e-1) / error(1e-2) == pytest.approx(100, rel=0.1) and error(1e-2) / error(1e-3) == pytest.approx(
        100, rel=0.1
    )
    assert error(1e-3) < 1e-6 * float(tree.norm(exact)) and float(tree.norm(exact)) > 1e-2
    assert error(1e-3, "scaled") == error(9.0, "scaled") < 1e-9 * float(tree.norm(exact))


def test_the_exact_product_is_the_hessian_times_the_vector(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    batch = batch_of(x, y)
    names, shapes = list(model), [v.shape for v in model.values()]
    flat = torch.cat([v.flatten() for v in model.values()])

    def value(w: torch.Tensor) -> torch.Tensor:
        parts = torch.split(w, [s.numel() for s in shapes])
        loss: torch.Tensor = smooth.loss({k: p.reshape(s) for k, p, s in zip(names, parts, shapes, strict=True)}, batch)
        return loss

    vector = torch.linspace(-1, 1, len(flat), dtype=torch.float64)
    expected = torch.autograd.functional.hessian(value, flat) @ vector
    as_tree = {
        k: p.reshape(s) for k, p, s in zip(names, torch.split(vector, [s.numel() for s in shapes]), shapes, strict=True)
    }
    product = PerFedAvg(order="exact").hessian_product(model, as_tree, batch, smooth.loss)
    torch.testing.assert_close(torch.cat([product[k].flatten() for k in names]), expected, rtol=0, atol=1e-12)


def test_the_three_batches_of_a_step_are_independent_draws() -> None:
    local = Local(epochs=2, batch_size=8)
    streams = PerFedAvg(order="exact").streams(Sizes(20, 5), local, Draw(0, 1, 3))
    assert {name: [len(b) for b in stream] for name, stream in streams.items()} == dict.fromkeys(
        ("train", "inner", "hessian"), [8, 8, 4] * 2
    )
    firsts = [tuple(streams[name][0]) for name in ("train", "inner", "hessian")]
    assert len(set(firsts)) == 3
    assert all(
        sorted(np.concatenate(stream[:3])) == list(range(20)) for stream in streams.values()
    )  # each: a pass over all
    assert set(PerFedAvg(order="fo").streams(Sizes(20, 5), local, Draw(0, 1, 3))) == {
        "train",
        "inner",
    }  # only these samples are gathered
    plain = FedAvg().streams(Sizes(20, 5), local, Draw(0, 1, 3))["train"]
    assert all(np.array_equal(a, b) for a, b in zip(streams["train"], plain, strict=True))  # D' are FedAvg's batches


def test_clients_count_alike(targets: Any) -> None:
    # alpha 0, lr 1/2: each client's model is its mean, 4 (one sample) and 0 (three): 2, not 1.
    trained = targets([[4.0], [0.0] * 3]).train(PerFedAvg(inner_lr=0.0), {"local.lr": 0.5, "local.batch_size": 0})
    assert trained.model["w"].item() == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("order", ["fo", "hf", "exact"])
def test_running_statistics_are_those_of_the_outer_batch_at_the_inner_step(
    federation: Any, batch_of: Any, order: Any
) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.norm = nn.Linear(1, 1), nn.BatchNorm1d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.w(x)
            return self.norm(z) + z  # type: ignore[no-any-return]

    module = Normed().double()
    loss = federation(module, [([[1.0], [2.0]], [[1.0], [0.0]])], loss=squared_error).loss
    names = ("train", "inner", "hessian")[: 2 if order == "fo" else 3]
    batches = {k: [batch_of([[i + 1.0], [i * i + 3.0]], [[2.0], [0.0]])] for i, k in enumerate(names)}
    new, _, _ = PerFedAvg(inner_lr=0.1, order=order).local_update(loss.initial(), {}, batches, loss, Local(lr=0.5))

    inner, outer = batches["inner"][0].data, batches["train"][0].data
    reference = copy.deepcopy(module)
    (reference(inner["x"]) - inner["y"]).square().mean().backward()
    at_u = copy.deepcopy(module)  # its statistics have seen nothing yet
    for p, q in zip(at_u.parameters(), reference.parameters(), strict=True):
        p.data -= 0.1 * q.grad
    at_u(outer["x"])
    assert int(new["norm.num_batches_tracked"]) == 1
    for name in ("norm.running_mean", "norm.running_var"):
        torch.testing.assert_close(new[name], at_u.state_dict()[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize(
    "order, expected", [("fo", [5 / 4, 1 / 2]), ("hf", [13 / 16, 1 / 4]), ("exact", [13 / 16, 1 / 4])]
)
def test_a_round_of_two_clients_and_two_weights_by_hand(lines: Any, engine: str, order: Any, expected: Any) -> None:
    # w = 0, alpha 1/4: the residuals are -4, after the inner step -2 and -3. lr 1/2: w_1 = (1, 1), w_2 = (3/2, 0), mean
    # (5/4, 1/2). I - x x^T / 4 multiplies x by 1/2 and 3/4: w_1 = (1/2, 1/2), w_2 = (9/8, 0), mean (13/16, 1/4).
    settings = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}
    trained = lines.train(PerFedAvg(inner_lr=0.25, order=order), settings, engine=engine)
    assert trained.model["weight"].tolist() == [pytest.approx(expected, rel=1e-8)]
