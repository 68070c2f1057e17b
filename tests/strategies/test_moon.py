"""MOON: its gradient against autograd of its definition; absent at the first visit."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from clients.models.mlp import mlp
from fl_sim import rng, tree
from strategies.fedavg import FedAvg
from strategies.moon import Moon

STEP = {"local.lr": 0.3, "local.steps": 1, "local.batch_size": 0}


def features(model: Any, x: Any, layer: str) -> tuple[Any, Any]:
    """(outputs, features) of the network of ``smooth``: linear, tanh, linear."""
    hidden = torch.tanh(x @ model["0.weight"].T + model["0.bias"])
    outputs = hidden @ model["2.weight"].T + model["2.bias"]
    return outputs, hidden if layer else outputs


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("layer", ["", "1"])
def test_the_second_visit_agrees_with_autograd_of_the_definition(smooth: Any, engine: str, layer: str) -> None:
    mu, tau = 2.0, 0.5
    trained = smooth.train(Moon(mu=mu, tau=tau, layer=layer), STEP, rounds=2, engine=engine)

    w, last = smooth.loss.initial(), {}
    sizes = [len(smooth.partition.client(k)) for k in range(5)]
    for _ in range(2):
        models = []
        for k in range(5):
            rows = torch.as_tensor(smooth.partition.client(k))
            x, y = smooth.loss.task.train["x"][rows].double(), smooth.loss.task.train["y"][rows]
            leaves = {n: v.clone().requires_grad_() for n, v in w.items()}
            outputs, z = features(leaves, x, layer)
            value = cross_entropy(outputs, y)
            if k in last:
                s_g, s_p = (cosine_similarity(z, features(m, x, layer)[1]) / tau for m in (w, last[k]))
                value = value - mu * (s_g.exp() / (s_g.exp() + s_p.exp())).log().mean()
            grads = torch.autograd.grad(value, list(leaves.values()))
            last[k] = {n: v.detach() - 0.3 * g for (n, v), g in zip(leaves.items(), grads, strict=True)}
            models.append(last[k])
        w = {n: sum(s * m[n] for s, m in zip(sizes, models, strict=True)) / sum(sizes) for n in w}
    for name, value in w.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)


def test_the_features_are_those_of_a_projection_head_where_the_network_has_one(federation: Any) -> None:
    draw = rng.generator(rng.key(0, "heads"))
    clients = [(draw.normal(size=(n, 4)), draw.integers(0, 3, n)) for n in (4, 8)]
    with rng.keyed_globals(0):
        world = federation(mlp((4,), 3, hidden=6, projection=5), clients, outputs=3)
    named = {layer: world.train(Moon(layer=layer), STEP, rounds=2) for layer in ("", "projection", "4")}
    assert tree.digest(named[""].model) == tree.digest(named["projection"].model) != tree.digest(named["4"].model)


def test_the_first_visit_and_mu_0_are_fedavg(smooth: Any) -> None:
    plain, first = (smooth.train(strategy, STEP) for strategy in (FedAvg(), Moon(mu=5.0)))
    assert tree.digest(plain.model) == tree.digest(first.model)
    plain, without = (smooth.train(strategy, STEP, rounds=3) for strategy in (FedAvg(), Moon(mu=0.0)))
    for name, value in plain.model.items():
        torch.testing.assert_close(without.model[name], value, rtol=0, atol=1e-12)
