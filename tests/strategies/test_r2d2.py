"""R2-D2: the ridge regression by hand and as torch solves it, its meta-gradients, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from fl_sim import squared_error
from fl_sim.errors import ConfigError
from fl_sim.learning.settings import Local
from strategies.base.meta_learning.solved_head import features, head_of
from strategies.r2d2 import R2D2


def learned(log_lambda: float = 0.0, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """What the server learns beside the model."""
    numbers = {"log_lambda": log_lambda, "scale": scale}
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()}


def test_two_weights_by_hand() -> None:
    # One feature, samples x = 1 (class 0) and x = 2 (class 1), lambda 1: X^T X + 1 = 6, X^T Y = (1, 2): W = (1/6, 1/3).
    x, targets = torch.tensor([[1.0], [2.0]]).double(), torch.eye(2).double()
    w = R2D2().solve(x, targets, torch.ones(2, 1).double(), learned())
    torch.testing.assert_close(w, torch.tensor([[1 / 6], [1 / 3]], dtype=torch.float64), rtol=1e-12, atol=0)
    # Two features, one sample x = (1, 2), lambda 5: x x^T + 5 = 10, W = Y^T x / 10.
    x = torch.tensor([[1.0, 2.0]]).double()
    w = R2D2().solve(x, targets[:1], torch.ones(1, 1).double(), learned(math.log(5)))
    torch.testing.assert_close(w, torch.tensor([[0.1, 0.2], [0, 0]], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [5, 20])
def test_both_systems_agree_and_padding_is_nothing(n: int) -> None:
    draw = torch.Generator().manual_seed(n)
    x, targets = torch.randn(n, 9, generator=draw).double(), one_hot(torch.arange(n) % 3, 3).double()
    numbers = learned(0.7)
    expected = torch.linalg.solve(x.T @ x + numbers["log_lambda"].exp() * torch.eye(9).double(), x.T @ targets).T
    torch.testing.assert_close(R2D2().solve(x, targets, targets[:, :1], numbers), expected, rtol=0, atol=1e-12)
    wide = [torch.cat([t, torch.zeros(13, t.shape[1]).double()]) for t in (x, targets)]
    torch.testing.assert_close(R2D2().solve(*wide, wide[1][:, :1], numbers), expected, rtol=0, atol=1e-12)


def test_the_meta_gradients_are_autograds(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    batches = {"support": [batch_of(x[:9], y[:9])], "query": [batch_of(x[20:40], y[20:40])]}
    head = learned(0.4, 1.5)
    reply, _, metrics, beside = R2D2().payload_update(model, {"head": head}, {}, batches, smooth.loss, Local())
    start, numbers = ({k: v.clone().requires_grad_() for k, v in t.items()} for t in (model, head))

    def below(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.double() @ start["0.weight"].T + start["0.bias"])

    z = below(x[:9])
    kernel = z @ z.T + numbers["log_lambda"].exp() * torch.eye(9).double()
    logits = numbers["scale"] * below(x[20:40]) @ z.T @ torch.linalg.solve(kernel, one_hot(y[:9], 3).double())
    value = cross_entropy(logits, y[20:40])
    leaves = [start["0.weight"], start["0.bias"], numbers["log_lambda"], numbers["scale"]]
    assert float(metrics["loss"]) == pytest.approx(value.item(), rel=1e-12)
    found = [reply["0.weight"], reply["0.bias"], beside["head"]["log_lambda"], beside["head"]["scale"]]
    for g, e in zip(found, torch.autograd.grad(value, leaves), strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-12)
    assert not reply["2.weight"].any() and not reply["2.bias"].any()  # the solved layer itself is not trained


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_move_lambda_and_scale_and_clients_are_evaluated_with_their_own_head(
    smooth: Any, engine: str
) -> None:
    strategy, initial = R2D2(outer_lr=0.5), smooth.loss.initial()
    personal = {"personalize.steps": 1, "personalize.lr": 0.1}
    trained = smooth.train(strategy, {}, rounds=2, evaluate=personal, unseen=1, engine=engine)
    kept = strategy.server_state["head"]
    assert float(kept["log_lambda"]) != pytest.approx(3.912023005428146, abs=1e-6)  # log 50
    assert float(kept["scale"]) != 1.0
    assert not torch.equal(trained.model["0.weight"], initial["0.weight"])
    assert torch.equal(trained.model["2.weight"], initial["2.weight"])


def test_what_is_solved_for_and_from_which_features(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    assert head_of(smooth.loss) == "2"
    found = features(model, batch_of(x[:7], y[:7]), "2", smooth.loss, training=False)
    expected = torch.tanh(x[:7].double() @ model["0.weight"].T + model["0.bias"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    said = R2D2().network_notes(smooth.loss, Local())
    assert len(said) == 1 and said[0].startswith("r2d2: the last layer (2) is solved for on each client's support")


def test_networks_and_tasks_without_such_a_head_are_refused(federation: Any, targets: Any) -> None:
    normed = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    cases = [
        (targets([[1.0]]).loss, "is no nn.Linear"),
        (federation(normed, [([[1.0, 2.0, 3.0]] * 2, [0, 1])], outputs=2).loss, "'1', is no nn.Linear"),
        (federation(nn.Linear(1, 1), [([[1.0]], [[1.0]])], loss=squared_error).loss, "one class a sample"),
    ]
    for loss, why in cases:
        with pytest.raises(ConfigError, match=rf"strategy.name = 'r2d2': .*{why}"):
            R2D2().network_notes(loss, Local())


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_round_of_two_clients_and_two_weights_by_hand(signs: Any, engine: str) -> None:
    # A body b = 1, samples x = 1 of class 0 and x = -1 of class 1, n of them in support: W = (n_0 b, -n_1 b) / (n b^2 +
    # lambda), so that each query has the margin m = scale n b^2 / (n b^2 + lambda), whatever support has of each class.
    # The loss is log(1 + e^-m), its derivative in m -sigma(-m). lambda 1, scale 1:
    # dm/db = 2 n b lambda / (n b^2 + lambda)^2, dm/dscale = m, dm/dlog lambda = -n / (n + 1)^2.
    # n = 1: m = 1/2, derivatives 1/2, 1/2, -1/4;  n = 3: m = 3/4, derivatives 3/8, 3/4, -3/16.  The server's step is 1.
    slopes = [1 / (1 + math.exp(m)) for m in (1 / 2, 3 / 4)]
    strategy = R2D2(lam=1.0, outer_lr=1.0)
    trained = signs([2, 6]).train(strategy, {}, engine=engine)
    of_b, of_scale, of_lambda = (
        sum(s * d for s, d in zip(slopes, both, strict=True)) / 2
        for both in ((1 / 2, 3 / 8), (1 / 2, 3 / 4), (-1 / 4, -3 / 16))
    )
    assert trained.model["0.weight"].item() == pytest.approx(1 + of_b, rel=1e-12)
    head = strategy.server_state["head"]
    assert float(head["scale"]) == pytest.approx(1 + of_scale, rel=1e-12)
    assert float(head["log_lambda"]) == pytest.approx(of_lambda, rel=1e-12)
