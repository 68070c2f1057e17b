"""Gradients of many clients at once equal those of ``torch.func``, also where private names of PyTorch are missing."""

import pytest
import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.kernels import client_gradients, layers, low_rank
from fl_sim.tree import Tree

CLIENTS = 3


def network() -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2, bias=False)).double()


def draw(name: str, *shape: int) -> Tensor:
    return rng.uniform(rng.words(rng.key(0, name)), shape, torch.float64) - 0.5


@pytest.mark.parametrize("missing", ["", "HAS_VERSION", "HAS_WRAPPER_SUBCLASS"])
def test_gradients_are_those_of_each_client(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``missing``: the flag of a private name that PyTorch does not have."""
    assert client_gradients.HAS_VERSION and low_rank.HAS_WRAPPER_SUBCLASS
    if missing:
        monkeypatch.setattr(low_rank if missing == "HAS_WRAPPER_SUBCLASS" else client_gradients, missing, False)
    plain = network()
    recording = layers.many_clients_form(plain, "cpu")
    models = {k: v.detach() + 0.1 * draw(k, CLIENTS, *v.shape) for k, v in plain.named_parameters()}
    x = draw("x", CLIENTS, 5, 4)
    products: list[bool] = []

    def loss_of(module: nn.Module) -> client_gradients.LossFunction:
        function = layers.FunctionalModule(module)
        return lambda params, data: function(params, data["x"]).square().sum()

    def seen(params: Tree, x: Tensor) -> tuple[Tree, Tensor]:
        grads, value = client_gradients.gradient(loss_of(recording), params, {"x": x})
        products.append(isinstance(grads["0.weight"], low_rank.Product))
        return {k: low_rank.formed(g) for k, g in grads.items()}, value

    def expected(params: Tree, x: Tensor) -> tuple[Tree, Tensor]:
        grads, value = torch.func.grad_and_value(loss_of(plain))(params, {"x": x})
        return grads, value

    (grads, values), (right, right_values) = (torch.func.vmap(f)(models, x) for f in (seen, expected))
    torch.testing.assert_close(values, right_values, rtol=1e-13, atol=0)
    for name, value in right.items():
        torch.testing.assert_close(grads[name], value, rtol=0, atol=1e-13)
    assert products == [missing != "HAS_WRAPPER_SUBCLASS"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_outputs_of_a_first_layer_have_the_bits_of_vmap(dtype: torch.dtype) -> None:
    plain = nn.Linear(300, 7).to(dtype)
    models = {k: draw(k, CLIENTS, *v.shape).to(dtype) for k, v in plain.named_parameters()}
    x = draw("x", CLIENTS, 5, 300).to(dtype)

    def value_of(module: nn.Module) -> client_gradients.LossFunction:
        function = layers.FunctionalModule(module)
        return lambda params, data: function(params, data["x"]).sum()

    recording = value_of(layers.many_clients_form(plain, "cpu"))
    found = torch.func.vmap(lambda params, x: client_gradients.gradient(recording, params, {"x": x})[1])(models, x)
    right = torch.func.vmap(lambda params, x: value_of(plain)(params, {"x": x}))(models, x)
    assert torch.equal(found, right)


def test_a_write_into_an_input_changes_no_gradient_where_writes_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the count of writes it is an error."""

    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layers.many_clients_form(nn.Sequential(nn.Linear(4, 2).double()), "cpu")

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1.0
            y: Tensor = self.layer(x)
            x += 1.0
            return y

    with rng.keyed_globals(0):
        module = Writing()
    function, x = layers.FunctionalModule(module), draw("x", CLIENTS, 5, 4)
    models = {k: v.detach().expand(CLIENTS, *v.shape).clone() for k, v in module.named_parameters()}

    def one(params: Tree, x: Tensor) -> Tree:
        grads, _ = client_gradients.gradient(lambda p, data: function(p, data["x"]).sum(), params, {"x": x})
        return {k: low_rank.formed(g) for k, g in grads.items()}

    with pytest.raises(RuntimeError, match="written into"):
        torch.func.vmap(one)(models, x)
    monkeypatch.setattr(client_gradients, "HAS_VERSION", False)
    grads = torch.func.vmap(one)(models, x)
    for name, grad in grads.items():  # of a sum of outputs: sums of inputs, and the batch size
        right = x.sum(1)[:, None].expand_as(grad) if name.endswith("weight") else torch.full_like(grad, 5.0)
        torch.testing.assert_close(grad, right, rtol=0, atol=1e-13)
