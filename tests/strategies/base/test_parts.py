"""Which leaves belong to the layers that a setting names."""

from typing import Any

import pytest
from torch import nn

from fl_sim.errors import ConfigError
from strategies.base.parts import leaves_of


class Named(nn.Module):
    """A network with a layer called ``all``, and a last layer inside another one."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(2, 3)
        self.rest = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))

    def forward(self, x: Any) -> Any:
        return self.rest(self.all(x))


LAST = ("rest.1.weight", "rest.1.bias")
NORM = tuple(f"rest.0.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize(
    "layers, leaves",
    [
        ("", LAST),
        ("rest.1", LAST),
        ("rest.1, rest.1.bias", LAST),
        ("rest.1.bias", LAST[1:]),
        ("rest", {*NORM, *LAST}),
        ("rest.0", NORM),
        ("none", ()),
        ("all", ("all.weight", "all.bias")),  # a layer's own name goes before the word
        ("all,rest", {"all.weight", "all.bias", *NORM, *LAST}),
    ],
)
def test_the_leaves_of_layers(federation: Any, layers: str, leaves: Any) -> None:
    loss = federation(Named(), [([[1.0, 2.0]] * 2, [0, 1])], outputs=2).loss
    found = leaves_of(loss, layers)
    assert set(found) == set(leaves) and list(found) == [k for k in loss.form.names if k in found]


def test_all_layers_of_a_network_without_layers_and_unknown_names(smooth: Any, targets: Any) -> None:
    assert leaves_of(smooth.loss, "all") == smooth.loss.form.names
    assert leaves_of(targets([[1.0]]).loss, "") == ("w",)
    said = "strategy.head = '0,first': no layer of this network has the name 'first'; the network has 0, 2; or give all"
    with pytest.raises(ConfigError, match=said):
        leaves_of(smooth.loss, "0,first")
