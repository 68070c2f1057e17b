"""A gradient kept as a product: an ordinary tensor for all operations, and one pass over the weight for plain SGD."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from fl_sim import tree
from fl_sim.kernels import low_rank
from fl_sim.kernels.low_rank import Linear, Product, supports
from fl_sim.learning import optim
from fl_sim.learning.optim import Rates


def layer_and_input(shape: tuple[int, ...] = (4, 3), bias: bool = True) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], 5, bias=bias).double()
    return layer, torch.randn(shape, dtype=torch.float64)


def product() -> Product:
    torch.manual_seed(1)
    return Product(torch.randn(5, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4, 3), (4, 6, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = layer_and_input(shape, bias)
    x.requires_grad_()
    fast = copy.deepcopy(layer)
    fast.__class__ = Linear
    expected = torch.autograd.grad(layer(x).sin().sum(), [x, *layer.parameters()])
    seen = torch.autograd.grad(fast(x).sin().sum(), [x, *fast.parameters()])
    assert isinstance(seen[1], Product) and not seen[1].requires_grad
    for a, b in zip(expected, seen, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-13)


def test_a_weight_used_twice() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 3).double(), torch.randn(4, 3, dtype=torch.float64)
    expected = torch.autograd.grad(layer(layer(x)).sum(), layer.weight)[0]
    layer.__class__ = Linear
    torch.testing.assert_close(
        torch.autograd.grad(layer(layer(x)).sum(), layer.weight)[0], expected, rtol=0, atol=1e-13
    )


def test_all_operations_treat_it_as_a_tensor() -> None:
    g = product()
    plain = g.left @ g.right
    assert (g.shape, g.dtype, g.ndim, g.numel(), g.is_floating_point()) == (plain.shape, plain.dtype, 2, 15, True)
    looks = [
        g + 0,
        0 + g,
        g.clone(),
        g.detach(),
        g[:],
        copy.deepcopy(g),
        pickle.loads(pickle.dumps(g)),
        torch.from_numpy(g.numpy()),
    ]
    for seen in [*looks, torch.stack([g])[0], tree.to({"g": g}, torch.float64)["g"], tree.take({"g": g[None]}, 0)["g"]]:
        assert type(seen) is Tensor and torch.equal(seen, plain)
    assert g.tolist() == plain.tolist() and tree.digest({"g": g}) == tree.digest({"g": plain})
    assert float(tree.norm({"g": g})) == float(tree.norm({"g": plain}))


@pytest.mark.parametrize("in_place", [False, True])
def test_plain_sgd_never_forms_it(in_place: bool) -> None:
    g, p = product(), torch.randn(5, 3, dtype=torch.float64)
    expected = p - 0.1 * (g.left @ g.right)
    new, _ = optim.sgd({"w": p}, {"w": g}, {}, 0, Rates(0.1, in_place=in_place))
    torch.testing.assert_close(new["w"], expected, rtol=0, atol=1e-14)
    assert g._formed is None and (new["w"] is p) == in_place


@pytest.mark.parametrize("rates", [Rates(0.1, 0.9), Rates(0.1, 0.0, 0.01), Rates(0.1, 0.9, 0.01)])
@pytest.mark.parametrize("name", optim.RULES)
def test_every_rule_takes_it_as_a_tensor(name: str, rates: Rates) -> None:
    ends = []
    for form in (lambda g: g, lambda g: g.left @ g.right):
        params: tree.Tree = {"w": torch.ones(5, 3, dtype=torch.float64)}
        state: optim.State = {}
        for step in range(3):
            params, state = optim.RULES[name](params, {"w": form(product())}, state, step, rates)
        ends.append(params["w"])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-13)


def test_which_layers_are_supported() -> None:
    assert supports(nn.Linear(1024, 128)) and not supports(nn.Linear(1023, 128))


def test_without_the_private_name_it_is_an_ordinary_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert low_rank.HAS_WRAPPER_SUBCLASS
    layer, x = layer_and_input()
    layer.__class__ = Linear
    lazy = torch.autograd.grad(layer(x).sin().sum(), layer.weight)[0]
    monkeypatch.setattr(low_rank, "HAS_WRAPPER_SUBCLASS", False)
    plain = torch.autograd.grad(layer(x).sin().sum(), layer.weight)[0]
    assert isinstance(lazy, Product) and type(plain) is Tensor and torch.equal(plain, lazy.formed())
    steps = [optim.sgd({"w": layer.weight.detach()}, {"w": g}, {}, 0, Rates(0.1))[0]["w"] for g in (lazy, plain)]
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=1e-14)


def test_products_in_nested_arguments_are_formed() -> None:
    g = product()
    plain = g.formed()
    assert torch.equal(torch.cat([g, torch.stack((g, g))[0]]), torch.cat([plain, plain]))
    assert torch.equal(torch.add(input=g, other=g), plain + plain) and torch.equal(g[(0, slice(1, 3))], plain[0, 1:3])
