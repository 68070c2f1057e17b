"""Products of a Hessian with a vector: by hand on two weights, the step's formula, and errors that show kinks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import Local, Loss, from_arrays, rng, squared_error, tree
from strategies.base.hessian_products import (
    Accuracy,
    accuracy,
    difference_product,
    exact_product,
    relative_step,
    scaled_step,
)
from strategies.perfedavg import PerFedAvg

X, Y, A, B = 1.5, 0.25, 0.8, 0.6
V = {"a": 0.3, "b": -0.4}


class Two(nn.Module):
    """f(x) = a act(b x), of two weights."""

    def __init__(self, act: Any, b: float = B) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Parameter(torch.tensor([A])), nn.Parameter(torch.tensor([b])), act

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.act(self.b * x)


def two(act: Any, b: float = B, precision: Any = "full") -> Loss:
    """(f(x) - y)^2 on one sample, in float64."""
    task = from_arrays(np.array([[X]]), np.array([[Y]]), loss=squared_error)
    return Loss(Two(act, b), task, torch.float32 if precision == "bf16" else torch.float64, precision=precision)


def products(loss: Loss, b: float, batch: Any, step: Any = None) -> tuple[list[float], list[float]]:
    """(exact, difference) at (A, b) along V."""
    at, vector = ({k: torch.tensor([x], dtype=loss.dtype) for k, x in d.items()} for d in ({"a": A, "b": b}, V))
    step = scaled_step(at, vector, loss) if step is None else step
    found = exact_product(at, vector, batch, loss), difference_product(at, vector, batch, loss, step)
    exact, difference = ([f[k].item() for k in ("a", "b")] for f in found)
    return exact, difference


def test_a_smooth_loss_by_hand(batch_of: Any) -> None:
    """l = (a t - y)^2 with t = tanh(b x), t' = x (1 - t^2), t'' = -2 x^2 t (1 - t^2), r = a t - y.

    l_aa = 2 t^2;  l_ab = 2 t' (a t + r);  l_bb = 2 a (a t'^2 + r t'').
    """
    t = np.tanh(B * X)
    t1, t2, r = X * (1 - t**2), -2 * X**2 * t * (1 - t**2), A * t - Y
    hessian = np.array([[2 * t**2, 2 * t1 * (A * t + r)], [2 * t1 * (A * t + r), 2 * A * (A * t1**2 + r * t2)]])
    expected = hessian @ [V["a"], V["b"]]
    exact, difference = products(two(torch.tanh), B, batch_of([[X]], [[Y]]))
    assert exact == pytest.approx(expected, abs=1e-13) and difference == pytest.approx(expected, abs=1e-9)


def test_relu_by_hand_away_from_its_kink_and_at_it(batch_of: Any) -> None:
    """Where b x > 0, l = (a b x - y)^2: l_aa = 2 b^2 x^2, l_ab = 4 a b x^2 - 2 x y, l_bb = 2 a^2 x^2; elsewhere H = 0.

    With b = h |v_b| / 2 the step along v passes 0, beyond which the gradient is 0. The difference is then the gradient
    behind, divided by -2 h: it holds the jump of -2 a x y in l_b, which H v does not.
    """
    loss, batch = two(torch.relu), batch_of([[X]], [[Y]])
    cross = 4 * A * B * X**2 - 2 * X * Y
    expected = np.array([[2 * B**2 * X**2, cross], [cross, 2 * A**2 * X**2]]) @ [V["a"], V["b"]]
    exact, difference = products(loss, B, batch)
    assert exact == pytest.approx(expected, abs=1e-13) and difference == pytest.approx(expected, abs=1e-9)
    assert products(loss, -B, batch) == ([0.0, 0.0], [0.0, 0.0])
    h = 1e-4
    b = -h * V["b"] / 2  # ahead: b + h v_b < 0, where l does not depend on a and b; behind: (a_, b_)
    a_, b_ = A - h * V["a"], b - h * V["b"]
    behind = np.array([2 * (a_ * b_ * X - Y) * b_ * X, 2 * (a_ * b_ * X - Y) * a_ * X])
    exact, difference = products(loss, b, batch, h)
    assert difference == pytest.approx(-behind / (2 * h), rel=1e-9)
    assert abs(difference[1]) > 1e3 * abs(exact[1])  # about a x y / h


def test_the_step_is_the_formula_rounded_to_a_power_of_two() -> None:
    loss = two(torch.tanh)
    at = {"a": torch.tensor([3.0], dtype=torch.float64), "b": torch.tensor([4.0], dtype=torch.float64)}  # |w| = 5
    # (3 * 2^-52)^(1/3) * 6 / 16 = 3.275e-6 = 2^-18.22; |v| = 1, 8 and 1 with other last bits; 2^-18.40 and 2^-18.55
    for size, expected in ((1.0, 2.0**-18), (8.0, 2.0**-21), (1 + 1e-15, 2.0**-18), (1.133, 2**-18), (1.257, 2**-19)):
        vector = {k: torch.tensor([size / 2**0.5], dtype=torch.float64) for k in at}
        assert scaled_step(at, vector, loss).item() == expected
    single, one = Loss(Two(torch.tanh), loss.task), tree.to(at, torch.float32)
    along = {k: torch.tensor([0.5**0.5]) for k in at}
    assert scaled_step(one, along, single).item() == 2.0**-9  # (3 * 2^-23)^(1/3) * 6 / 16 = 2^-8.55
    single.precision = "tf32"
    assert scaled_step(one, along, single).item() == 2.0**-4  # (3 * 2^-10)^(1/3) * 6 / 16 = 2^-4.22
    single.precision = "full"
    zero = scaled_step(one, tree.zeros(along), single)
    assert torch.isfinite(zero) and (zero * 0).item() == 0
    assert relative_step({**one, "running_mean": torch.tensor([99.0])}, along, 0.25).item() == 2.0  # 1.5: not of w


def test_a_difference_in_bf16_is_refused(batch_of: Any) -> None:
    with pytest.raises(ValueError, match="precision = 'bf16': leaves no digit of a difference"):
        products(two(torch.tanh, precision="bf16"), B, batch_of([[X]], [[Y]]))


def digits_like(act: type[nn.Module], dtype: torch.dtype) -> Loss:
    """80 samples of 8 numbers, 3 classes, one hidden layer of 200 units."""
    draw = np.random.default_rng(0)
    task = from_arrays(draw.normal(size=(80, 8)), draw.integers(0, 3, 80), outputs=3)
    with rng.keyed_globals(0):
        return Loss(nn.Sequential(nn.Linear(8, 200), act(), nn.Linear(200, 3)), task, dtype)


@pytest.mark.parametrize("dtype, most", [(torch.float32, 7e-5), (torch.float64, 1e-9)])
def test_the_error_on_a_smooth_network_is_small_and_nothing_is_said(dtype: torch.dtype, most: float) -> None:
    found = accuracy(digits_like(nn.Tanh, dtype), 0.05, None, 16)
    assert found is not None and max(found.errors) < most and found.samples == 16
    assert not found.has_kinks and found.sentence == ""
    worse = accuracy(digits_like(nn.Tanh, dtype), 0.05, 3.0, 16)  # a step that is much too long
    assert worse is not None and max(worse.errors) > 0.05 and not worse.has_kinks
    assert worse.sentence.startswith("strategy.order hf: the relative error of the finite difference is ")
    assert "jumps" not in worse.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU])
def test_kinks_are_found_by_their_effect_also_where_no_batch_crosses_one(act: Any, dtype: torch.dtype) -> None:
    found = accuracy(digits_like(act, dtype), 0.05, None, 16)
    assert found is not None and found.has_kinks
    assert (max(found.errors) > 0.1) == (dtype == torch.float32)
    assert f"{max(found.errors):.2g} (largest) in 4 batches of 16 samples" in found.sentence
    assert "the gradient jumps, as it does with ReLU and max pooling" in found.sentence


def test_what_the_run_says_is_its_own_step_s_error() -> None:
    relu, local = digits_like(nn.ReLU, torch.float32), Local(batch_size=16)
    scaled, fixed, long = (
        PerFedAvg(order="hf", hf_step=kind, delta=delta).network_notes(relu, local)
        for kind, delta in (("scaled", 1e-3), ("fixed", 1e-3), ("fixed", 1e-1))
    )
    assert len({scaled[0], fixed[0], long[0]}) == 3
    assert PerFedAvg(order="hf").network_notes(digits_like(nn.Tanh, torch.float32), local) == ()
    assert PerFedAvg(order="exact").network_notes(relu, local) == PerFedAvg().network_notes(relu, local) == ()


def test_a_layer_without_second_derivatives_says_nothing() -> None:
    class Once(torch.autograd.Function):
        """tanh, whose gradient cannot be differentiated."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return torch.autograd.function.once_differentiable(lambda _, y: y)(ctx, g)

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)  # type: ignore[no-any-return, no-untyped-call]

    assert accuracy(digits_like(Layer, torch.float64), 0.05, None, 16) is None


@pytest.mark.parametrize(
    "wide, narrow, kinks",
    [
        *[(0.02, 0.02 / 16, False), (0.02, 0.01, True), (0.02, 0.03, True), (0.02, 1e-6, True), (0.009, 0.009, False)],
        *[(0.02, 0.02 / 9, False), (0.02, 0.02 / 7, True), (0.02, 0.02 / 31, False), (0.02, 0.02 / 33, True)],
    ],
)
def test_kinks_show_in_the_ratio_of_two_steps_errors(wide: float, narrow: float, kinks: bool) -> None:
    assert Accuracy((0.0, 0.0), (0.001, wide), (0.001, narrow), 8).has_kinks == kinks


def test_of_a_smooth_loss_two_steps_errors_are_as_16_to_1_where_they_are_large() -> None:
    found = accuracy(two(lambda z: torch.sin(20 * z)), 0.05, None, 1)
    assert found is not None and min(found.wide) > 0.01 and not found.has_kinks and found.sentence == ""
    assert [a / b for a, b in zip(found.wide, found.narrow, strict=True)] == pytest.approx([16] * 4, rel=0.1)


def test_the_error_is_that_of_gradients_after_one_inner_step_relative_to_the_product(batch_of: Any) -> None:
    loss, step = two(torch.tanh), 0.5
    batch, model = batch_of([[X]], [[Y]]), loss.initial()
    vector, _, _ = loss.gradient({k: w - 0.2 * loss.gradient(model, batch)[0][k] for k, w in model.items()}, batch)
    exact = exact_product(model, vector, batch, loss)
    off = tree.sub(difference_product(model, vector, batch, loss, step), exact)
    found = accuracy(loss, 0.2, step, 1)
    assert found is not None and found.errors == pytest.approx([(tree.norm(off) / tree.norm(exact)).item()] * 4)


def test_batches_have_at_most_32_samples_and_without_samples_or_a_product_nothing_is_said() -> None:
    loss = two(torch.tanh)
    found = [accuracy(loss, 0.05, None, size) for size in (0, 7, 100)]
    assert [each and (each.samples, len(each.errors)) for each in found] == [(32, 4), (7, 4), (32, 4)]
    loss.task = replace(loss.task, train={k: v[:0] for k, v in loss.task.train.items()})
    assert accuracy(loss, 0.05, None, 1) is None
    task = from_arrays(np.array([[X]]), np.array([[Y]]), loss=lambda outputs, batch: outputs[:, 0])
    assert accuracy(Loss(nn.Linear(1, 1), task, torch.float64), 0.05, None, 1) is None  # H is 0: no relative error


@pytest.mark.parametrize("error, said", [(0.049, False), (0.051, True)])
def test_errors_from_5_percent_are_told(error: float, said: bool) -> None:
    assert bool(Accuracy((0.0, error), (0.0, 0.0), (0.0, 0.0), 8).sentence) == said
