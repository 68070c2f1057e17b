"""The SVM head: logits of scipy's optimum, gradients, padding, and what is known in closed form."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import one_hot

from strategies.base.meta_learning.svm_head import Dual, conjugate_gradients, eigenvalue_bound, projected

C = 0.1


def support(n: int, features: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, F) of n samples around as many centres as classes, and their classes one-hot (N, K)."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, features, generator=draw, dtype=torch.float64)
    return centres[y] / 2 + torch.randn(n, features, generator=draw, dtype=torch.float64), one_hot(y, classes).double()


def weights(x: torch.Tensor, targets: torch.Tensor, steps: int = 100, c: float = C) -> torch.Tensor:
    """W (K, F)."""
    dual: torch.Tensor = Dual.apply(x @ x.T, targets, c * targets, steps)  # type: ignore[no-untyped-call]
    return dual.T @ x


def of_scipy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """W (K, F) of the primal: 1/2 |W|^2 + C sum_i xi_i with xi_i >= w_k x_i - w_y x_i + 1 - [k = y], all k."""
    (n, f), k = x.shape, y.shape[1]
    own = np.einsum("ik,if->ikf", y, x)
    rows = []
    for i in range(n):
        for j in range(k):
            w = own[i].copy()
            w[j] -= x[i]
            rows.append(np.concatenate([w.ravel(), np.eye(n)[i]]))
    a, b = np.array(rows), (1 - y).ravel()
    found = minimize(
        lambda v: 0.5 * v[: k * f] @ v[: k * f] + C * v[k * f :].sum(),
        np.concatenate([np.zeros(k * f), np.ones(n)]),
        jac=lambda v: np.concatenate([v[: k * f], np.full(n, C)]),
        constraints={"type": "ineq", "fun": lambda v: a @ v - b, "jac": lambda v: a},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x[: k * f].reshape(k, f)


@pytest.mark.parametrize("n, features, classes", [(6, 8, 3), (12, 4, 3), (8, 3, 2)])
def test_logits_are_those_of_scipy(n: int, features: int, classes: int) -> None:
    x, targets = support(n, features, classes)
    query = support(7, features, classes, seed=1)[0]
    expected = query @ torch.from_numpy(of_scipy(x.numpy(), targets.numpy())).T
    torch.testing.assert_close(query @ weights(x, targets).T, expected, rtol=0, atol=1e-5)


def test_one_sample_in_closed_form() -> None:
    # Two classes: W_0 = -W_1 = a x, and a least of a^2 |x|^2 - a, at most C: a = min(C, 1 / (2 |x|^2)).
    targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for length, a in ((1.0, C), (3.0, 1 / 18)):
        x = torch.tensor([[length, 0.0]], dtype=torch.float64)
        expected = a * torch.cat([x, -x])
        torch.testing.assert_close(weights(x, targets), expected, rtol=1e-9, atol=0)


def test_a_support_of_one_class_gives_all_others_one_lower_logit() -> None:
    x, _ = support(5, 4, 2)
    targets = one_hot(torch.zeros(5, dtype=torch.int64), 4).double()
    w = weights(x, targets)
    torch.testing.assert_close(w[1:], (-w[0] / 3).expand(3, -1), rtol=0, atol=1e-12)  # the rows of A have the sum 0
    assert bool((x @ w[0] >= x @ w[1]).all()) and bool(torch.isfinite(w).all())


def test_the_gradient_is_that_of_differences() -> None:
    x, targets = support(6, 3, 3)
    direction = support(6, 3, 3, seed=2)[0]

    def value(x: torch.Tensor) -> torch.Tensor:
        return (weights(x, targets, 200) * torch.linspace(-1, 1, 9, dtype=x.dtype).reshape(3, 3)).sum().sin()

    gradient = torch.func.grad(value)(x)
    step = 1e-5
    difference = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-6)
    assert abs(float(difference)) > 1e-3


def test_under_vmap_and_with_padding_it_is_the_same() -> None:
    x, targets = (torch.stack(t) for t in zip(*(support(6, 4, 3, seed=s) for s in (0, 1, 2)), strict=True))

    def value(x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return weights(x, targets).square().sum()

    batched: Any = torch.func.vmap(torch.func.grad_and_value(value))(x, targets)
    wide = [torch.cat([t, torch.zeros_like(t[:, :2])], 1) for t in (x, targets)]
    padded: Any = torch.func.vmap(torch.func.grad_and_value(value))(*wide)
    for i in range(3):
        gradient, own = torch.func.grad_and_value(value)(x[i], targets[i])
        torch.testing.assert_close(batched[1][i], own, rtol=1e-9, atol=0)
        torch.testing.assert_close(padded[1][i], own, rtol=1e-9, atol=0)
        torch.testing.assert_close(batched[0][i], gradient, rtol=0, atol=1e-9)
        torch.testing.assert_close(padded[0][i][:6], gradient, rtol=0, atol=1e-9)
        assert not padded[0][i][6:].any()


def test_the_projection_satisfies_its_constraints_and_is_nearest() -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = C * one_hot(torch.arange(20) % 4, 4).double()
    bound[-1] = 0
    p = projected(z, bound)
    assert bool((p <= bound).all()) and float(p.sum(1).abs().max()) < 1e-12 and not p[-1].any()
    # Nearest: (z - p) (q - p) <= 0 for all q of the set, whose corners are C (e_y - e_k).
    corners = bound[:-1, None, :] - C * torch.eye(4, dtype=torch.float64)
    assert float(((z - p)[:-1, None] * (corners - p[:-1, None])).sum(2).max()) < 1e-12


def test_the_bound_of_the_largest_eigenvalue_is_close_and_zero_matrices_are_finite() -> None:
    x, _ = support(25, 12, 5)
    largest = torch.linalg.eigvalsh(x @ x.T)[-1]
    assert 1 <= float(eigenvalue_bound(x @ x.T) / largest) < 1.15
    zeros = torch.zeros(3, 2, dtype=torch.float64)
    assert bool(torch.isfinite(weights(zeros, one_hot(torch.arange(3) % 2, 2).double())).all())


def test_conjugate_gradients_solve_a_singular_system() -> None:
    x, _ = support(6, 3, 2)
    a = x @ x.T
    b = a @ torch.linspace(-1, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(a @ conjugate_gradients(lambda v: a @ v, b, 50), b, rtol=0, atol=1e-10)
