"""Convolutions of many clients at once equal PyTorch's, and so do their first and second derivatives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.kernels import layers, patches
from fl_sim.tree import Tree

CLIENTS, BATCH = 3, 2


@pytest.fixture
def network() -> nn.Sequential:
    with rng.keyed_globals(0):
        strided = nn.Conv2d(4, 4, 2, stride=2)  # not supported: stays as it is
        convolutions = nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 5, bias=False), strided
        return nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).double()


def pictures(width: int = 13) -> Tensor:
    return rng.uniform(rng.words(rng.key(0, "pictures")), (CLIENTS, BATCH, 3, 12, width), torch.float64)


def trained(network: nn.Module, x: Tensor, meta: bool) -> Tree:
    """For each client two steps from shared weights; with ``meta``, a gradient through a third step."""
    start, function = {k: v.detach() for k, v in network.named_parameters()}, layers.FunctionalModule(network)

    def loss(params: Tree, x: Tensor) -> Tensor:
        return function(params, x).sin().square().sum()

    def step(params: Tree, x: Tensor) -> Tree:
        grads = torch.func.grad(loss)(params, x)
        return {k: v - 0.1 * grads[k] for k, v in params.items()}

    def one(x: Tensor) -> Tree:
        params = step(step(start, x), x)
        outer: Callable[[Tree], Tensor] = lambda p: loss(step(p, x), x)  # noqa: E731
        return torch.func.grad(outer)(params) if meta else params

    results: Tree = torch.func.vmap(one)(x)
    return results


@pytest.mark.parametrize("meta", [False, True])
def test_training_is_that_of_plain_convolutions(network: nn.Sequential, meta: bool) -> None:
    many = layers.many_clients_form(network, "cuda")
    assert [type(m) for m in many if isinstance(m, nn.Conv2d)] == [patches.Conv2d, patches.Conv2d, nn.Conv2d]
    plain, quick = (trained(form, pictures(), meta) for form in (network, many))
    for name, value in plain.items():
        assert torch.allclose(value, quick[name], rtol=1e-11, atol=1e-13)


def test_a_first_layer_forms_no_gradient_of_its_pictures(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    own = patches._InputGradient.apply
    monkeypatch.setattr(
        patches._InputGradient, "apply", lambda outer, weight: (widths.append(outer.shape[-1]), own(outer, weight))[1]
    )
    trained(layers.many_clients_form(network, "cuda"), pictures(), meta=False)
    assert set(widths) == {9}  # of the 5x5 layer; never of the first, whose outputs are 13 wide
