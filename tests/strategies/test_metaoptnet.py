"""MetaOptNet: its meta-gradients on a network, what is federated, and clients with one class."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from fl_sim.learning.settings import Local
from strategies.metaoptnet import MetaOptNet


def test_the_meta_gradients_are_those_of_differences(smooth: Any, batch_of: Any) -> None:
    x, y, model = smooth.loss.task.train["x"], smooth.loss.task.train["y"], smooth.loss.initial()
    batches = {"support": [batch_of(x[:6], y[:6])], "query": [batch_of(x[20:30], y[20:30])]}
    head = {"scale": torch.tensor(1.5, dtype=torch.float64)}
    rule, step = MetaOptNet(), 1e-5

    def value(moved: float, scaled: float) -> float:
        at = {**model, "0.weight": model["0.weight"] + moved * direction}
        result = rule.payload_update(at, {"head": {"scale": head["scale"] + scaled}}, {}, batches, smooth.loss, Local())
        return float(result[2]["loss"])

    direction = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4)
    reply, _, _, beside = rule.payload_update(model, {"head": head}, {}, batches, smooth.loss, Local())
    of_model = (value(step, 0) - value(-step, 0)) / (2 * step)
    of_scale = (value(0, step) - value(0, -step)) / (2 * step)
    assert float((reply["0.weight"] * direction).sum()) == pytest.approx(of_model, rel=1e-5)
    assert float(beside["head"]["scale"]) == pytest.approx(of_scale, rel=1e-6)
    assert abs(of_model) > 1e-4 and not reply["2.weight"].any()


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_clients_of_one_class_train_and_are_evaluated(federation: Any, engine: str) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))
    clients = [([[1.0, 0.5]] * 4, [0] * 4), ([[0.0, 1.0], [1.0, 1.0]] * 2, [1, 2] * 2)]
    strategy = MetaOptNet(solver_steps=20)
    federated = federation(network, clients, outputs=3, held_out=0.5)
    personal = {"personalize.steps": 1, "personalize.lr": 0.1}
    trained = federated.train(strategy, {}, evaluate=personal, engine=engine)
    assert float(strategy.server_state["head"]["scale"]) != 1.0 and len(trained.answers) == 4
    # The client of class 0 tells it from the others: accuracy 1 on its held-out samples.
    answers = zip(trained.answers, trained.answered, strict=True)
    found = {c: a.metrics for a, (kind, _, c) in answers if kind == "evaluate"}
    assert found[0]["accuracy"] == 1.0


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_round_of_two_clients_and_two_weights_by_hand(signs: Any, engine: str) -> None:
    # A body b = 1, samples x = 1 of class 0 and x = -1 of class 1, n of them in support, C = 1/10. The dual's rows are
    # (a_i, -a_i) and its negative, with the sum a = min(n C, 1 / (2 b^2)); W_0 = a b = -W_1, each query's margin is
    # m = scale * 2 a b^2. The loss is log(1 + e^-m), its derivative in m -sigma(-m).
    # n = 1: a = C, m = 1/5, dm/db = 4 C b = 2/5, dm/dscale = 1/5.
    # n = 6: 6 C > 1/2, a is inside its bounds: m = scale, dm/db = 0, dm/dscale = 1.  The server's step is 1.
    first, second = (1 / (1 + math.exp(m)) for m in (1 / 5, 1))
    strategy = MetaOptNet(outer_lr=1.0)
    trained = signs([2, 12]).train(strategy, {}, engine=engine)
    assert trained.model["0.weight"].item() == pytest.approx(1 + first * (2 / 5) / 2, rel=1e-6)
    scale = float(strategy.server_state["head"]["scale"])
    assert scale == pytest.approx(1 + (first / 5 + second) / 2, rel=1e-6)
