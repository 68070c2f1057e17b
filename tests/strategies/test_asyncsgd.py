"""Asynchronous SGD by hand: one in flight is sequential SGD bit for bit, and three events of delay compensation."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import Local, tree
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.population.devices import Devices, Drawn
from fl_sim.tree import Tree
from strategies.asyncsgd import AsyncSGD
from strategies.base.asynchronous import Arrived
from tests.fl_sim.rounds.asynchronous.small_async_federation import federation, model_of, run

SETTINGS = {"strategy": "asyncsgd", "local.epochs": 1}


def layer_at(model: Tree) -> nn.Linear:
    """The network with these weights."""
    layer = nn.Linear(3, 2, dtype=torch.float64)
    layer.load_state_dict(dict(model))
    return layer


def backward(layer: nn.Linear, client: int, key: int) -> None:
    """The gradient of the batch that a launch draws, in plain PyTorch; ``key`` stands for the round in its key."""
    loss, partition = federation()
    owned = partition.client(client)
    [batch] = AsyncSGD().streams(Sizes(len(owned), 0), Local(batch_size=3), Draw(5, key, client))["train"]
    rows = torch.from_numpy(owned[batch])
    layer.zero_grad()
    nn.functional.cross_entropy(layer(loss.task.train["x"][rows].double()), loss.task.train["y"][rows]).backward()


class Noted(AsyncSGD):
    """Asynchronous SGD that notes whose replies it gets."""

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        WHO.extend(one.client for one in arrived)
        return super().apply(model, arrived, server_round)


WHO: list[int] = []


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_one_client_in_flight_is_sequential_sgd(engine: str) -> None:
    """Bit for bit that of torch.optim on the loop; vmap computes the gradients in another order."""
    WHO.clear()
    result = run(Noted(lr=0.3), 5, 1, engine, settings=SETTINGS)
    layer = layer_at(federation()[0].initial())
    descent = torch.optim.SGD(layer.parameters(), lr=0.3)
    for number, client in enumerate(WHO):
        backward(layer, client, number + 1)
        descent.step()
    expected = {k: v.detach() for k, v in layer.state_dict().items()}
    if engine == "loop":
        assert tree.digest(model_of(result)) == tree.digest(expected)
    assert max(float((model_of(result)[k] - x).abs().max()) for k, x in expected.items()) < 1e-12


def equal(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Devices that are all alike."""
    return Drawn(np.ones(len(clients)), np.zeros(len(clients), np.int64))


def test_three_events_of_delay_compensation() -> None:
    """Two in flight: both start from w0 and are done at once; the second is applied at w1, the third starts from w2."""
    WHO.clear()
    result = run(Noted(lr=0.3, compensation=0.5), 3, 2, settings=SETTINGS, devices=Devices(equal, 1))
    assert [row["staleness_max"] for row in result.rows[1:]] == [0, 1, 0]

    def gradients(at: Tree, client: int, key: int) -> dict[str, Tensor]:
        layer = layer_at(at)
        backward(layer, client, key)
        return {k: p.grad for k, p in layer.named_parameters() if p.grad is not None}

    w0 = federation()[0].initial()
    first, second = (gradients(w0, client, 1) for client in WHO[:2])
    w1 = {k: w0[k] - 0.3 * first[k] for k in w0}
    w2 = {k: w1[k] - 0.3 * (g + 0.5 * g * g * (w1[k] - w0[k])) for k, g in second.items()}
    third = gradients(w2, WHO[2], 3)
    for k, g in third.items():
        assert torch.allclose(model_of(result)[k], w2[k] - 0.3 * g, rtol=0, atol=1e-12)


def test_events_on_one_weight() -> None:
    """lr .1, g = 2, w = 1: fresh; 4 steps late; 4 steps late from w = .5, compensated by .04 x 4 x .5."""
    model, g = {"w": torch.tensor([1.0], dtype=torch.float64)}, {"w": torch.tensor([2.0], dtype=torch.float64)}

    def after(strategy: AsyncSGD, staleness: int, start: float) -> float:
        arrived = Arrived(g, staleness, 0, {}, {"w": torch.tensor([start], dtype=torch.float64)})
        return float(strategy.apply(model, [arrived], 1)["w"])

    assert after(AsyncSGD(), 0, 1.0) == pytest.approx(0.8, abs=1e-15)
    assert after(AsyncSGD(), 1, 1.0) == pytest.approx(0.8, abs=1e-15)
    assert after(AsyncSGD(), 4, 1.0) == pytest.approx(0.95, abs=1e-15)
    assert after(AsyncSGD(staleness="constant"), 4, 1.0) == pytest.approx(0.8, abs=1e-15)
    assert after(AsyncSGD(compensation=0.04), 4, 0.5) == pytest.approx(1 - 0.025 * 2.08, abs=1e-15)


def test_only_delay_compensation_keeps_the_models_of_starts() -> None:
    assert not AsyncSGD().needs_start and AsyncSGD(compensation=0.04).needs_start
