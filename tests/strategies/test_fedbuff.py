"""FedBuff's server step by hand, on a model of one weight."""

import pytest
import torch

from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived
from strategies.fedbuff import FedBuff


def delta(value: float, staleness: int) -> Arrived:
    """A reply that changes the weight by ``value``."""
    return Arrived({"w": torch.tensor([value]).double()}, staleness, 0, {"num-examples": 7}, {})


def test_two_steps_by_hand() -> None:
    """K = 2, beta = .5, lr = 2: Delta is (1 + 2 / 2) / 2 = 1, then (4 / 3 + 0) / 2 = 2 / 3 with momentum 1 / 2."""
    strategy, model = FedBuff(buffer=2, beta=0.5), Tree({"w": torch.ones(1).double()})
    strategy.server_lr = 2.0
    model = strategy.stepped(model, [delta(1.0, 0), delta(2.0, 3)], 1)
    assert float(model["w"]) == pytest.approx(3.0, abs=1e-12)
    model = strategy.stepped(model, [delta(4.0, 8), delta(0.0, 0)], 2)
    assert float(model["w"]) == pytest.approx(3 + 2 * (1 / 2 + 2 / 3), abs=1e-12)
