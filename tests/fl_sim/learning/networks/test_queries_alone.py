"""Each sample alone beside a support batch, against plain PyTorch in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import from_arrays, rng
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks import queries_alone
from fl_sim.learning.networks.queries_alone import BesideSupport, normalises_together


class Doubled(nn.Module):
    """Inputs times two in evaluation, a BatchNorm of the batch, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x if self.training else 2 * x) ** 3)  # type: ignore[no-any-return]


def world(network: nn.Module) -> tuple[Loss, Tensor, Tensor]:
    """(loss, x (10, 3), y (10,))."""
    x, y = rng.generator(1).normal(size=(10, 3)), np.arange(10) % 2
    loss = Loss(network, from_arrays(x, y, x_test=x, y_test=y), torch.float64)
    return loss, loss.task.train["x"].double(), loss.task.train["y"]


def batch(x: Tensor, y: Tensor, rows: slice) -> Batch:
    return Batch({"x": x[rows], "y": y[rows]}, rng.words(0))


@pytest.mark.parametrize("support", [4, 0])
def test_each_query_is_normalised_with_the_support_alone(monkeypatch: pytest.MonkeyPatch, support: int) -> None:
    monkeypatch.setattr(queries_alone, "AT_ONCE", 12)  # of six queries two pass at once
    torch.manual_seed(0)
    network = Doubled().double()
    loss, x, y = world(network)
    model = loss.initial()
    beside = BesideSupport(loss, batch(x, y, slice(0, support)))
    if not support:  # one sample has no variance: PyTorch refuses it
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            beside.metrics(model, batch(x, y, slice(4, 10)))
        return
    network.eval()
    with torch.no_grad():
        expected = torch.cat([network(torch.cat([x[:support], x[q : q + 1]]))[-1:] for q in range(4, 10)])
        together = network(x[4:])
    outputs, targets = beside.evaluated(model, batch(x, y, slice(4, 10)))
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(targets, y[4:]) and not torch.allclose(expected, together, atol=1e-3)
    value = float(nn.functional.cross_entropy(expected, y[4:]))
    found = beside.metrics(model, batch(x, y, slice(4, 10)))
    assert float(found["loss"]) == pytest.approx(value, rel=1e-12)
    assert float(found["accuracy"]) == float((expected.argmax(1) == y[4:]).double().mean())
    trained, plain = (one.gradient(model, batch(x, y, slice(4, 10)))[0] for one in (beside, loss))
    assert all(torch.equal(trained[k], plain[k]) for k in plain)  # training is unchanged
    assert float(loss.metrics(model, batch(x, y, slice(4, 10)))["loss"]) != value  # so is the loss that it was made of


@pytest.mark.parametrize(
    "layer, expected",
    [
        (nn.BatchNorm1d(3, track_running_stats=False), True),
        (nn.BatchNorm1d(3), False),
        (nn.InstanceNorm1d(3), False),
        (nn.LayerNorm(3), False),
    ],
)
def test_which_networks_normalise_together(layer: Any, expected: bool) -> None:
    assert normalises_together(nn.Sequential(nn.Linear(3, 3), layer)) is expected
