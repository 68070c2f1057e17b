"""Modules as functions of their tensors, their form for one client, and dropout with a key."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.kernels import layers
from fl_sim.kernels.low_rank import Product
from fl_sim.kernels.winograd import Conv3x3
from fl_sim.learning.loss import Batch, Loss
from tests.fl_sim.kernels.missing_names import import_without


class Tied(nn.Module):
    """Two layers of one weight, one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight, self.again = self.first.weight, self.first

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.second(self.again(x).tanh())
        return outputs


def test_a_module_is_a_function_of_its_tensors_and_keeps_its_own() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before, x = tree.digest(module.state_dict()), torch.randn(6, 4)
    values = {k: torch.rand_like(v) if v.is_floating_point() else v.clone() for k, v in module.state_dict().items()}
    mean = values["1.running_mean"].clone()
    expected = torch.func.functional_call(module, {k: v.clone() for k, v in values.items()}, (x,))
    assert torch.equal(layers.FunctionalModule(module)(values, x), expected)
    assert not torch.equal(values["1.running_mean"], mean)  # BatchNorm writes into the buffer that it was given
    with pytest.raises(RuntimeError):
        layers.FunctionalModule(module)(values, torch.randn(6, 5))
    assert tree.digest(module.state_dict()) == before and not any(
        v is p for v in values.values() for p in module.parameters()
    )


def test_without_the_private_dicts_of_modules_the_function_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layers.HAS_TENSOR_DICTS
    for module, x in (
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), torch.randn(6, 4)),
        (Tied(), torch.randn(6, 4)),
    ):
        function, results = layers.FunctionalModule(module), []
        state = {k: torch.rand_like(v) if v.is_floating_point() else v.clone() for k, v in module.state_dict().items()}
        names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
        for has_dicts in (True, False):
            monkeypatch.setattr(layers, "HAS_TENSOR_DICTS", has_dicts)
            values = {**{k: state[k].clone() for k in names}, "of another module": torch.zeros(1)}
            results.append([function(values, x), *values.values()])  # BatchNorm writes into its buffers
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LazyBatchNorm2d])
def test_batch_norm_is_recognised_without_its_private_base_class(kind: type[nn.Module]) -> None:
    without = import_without(layers, nn.modules.batchnorm, "_BatchNorm")
    assert without.BATCH_NORMS != layers.BATCH_NORMS
    module = nn.Sequential(nn.Flatten(), kind() if kind is nn.LazyBatchNorm2d else kind(2))
    assert layers.has_batch_norm(module) and without.has_batch_norm(module)
    assert not layers.has_batch_norm(nn.GroupNorm(1, 2)) and not without.has_batch_norm(nn.GroupNorm(1, 2))


def test_only_named_tensors_are_replaced() -> None:
    module, x = nn.Linear(4, 3), torch.randn(2, 4)
    assert torch.equal(layers.FunctionalModule(module)({"bias": torch.zeros(3)}, x), x @ module.weight.T)


def test_a_tied_weight_has_one_gradient() -> None:
    with rng.keyed_globals(0):
        module = Tied().double()
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    loss = Loss(module, from_arrays(x, y, x_test=x, y_test=y, outputs=4), torch.float64)
    assert (
        set(loss.initial()) == {"first.weight", "first.bias", "second.bias"} == set(loss.trainable)
        and loss.buffers == ()
    )
    module.zero_grad()
    nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    for each in (loss, loss.under_vmap()):
        grads, _, _ = each.gradient(each.initial(), Batch(dict(loss.task.train), rng.words(1)))
        for name, p in module.named_parameters():
            torch.testing.assert_close(grads[name], p.grad, rtol=0, atol=1e-13)


class Viewing(nn.Module):
    """Flattens by ``view``, as many models do, which channels-last memory does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.conv(x).view(len(x), -1))
        return outputs


class Peeking(Viewing):
    """Computes something else where memory is channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.conv(x).flatten(1)) * (1.0 if x.is_contiguous() else 2.0)
        return outputs


def large() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 3)),
    )


def loss_of(make: Callable[[], nn.Module], size: int) -> Loss:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(12, 2, size, size)), draw.integers(0, 3, 12)
    with rng.keyed_globals(0):
        module = make()
    return Loss(module, from_arrays(x, y, x_test=x, y_test=y, outputs=3), torch.float64)


@pytest.mark.parametrize("make, size, quick", [(large, 8, True), (Viewing, 6, False), (Peeking, 6, False)])
def test_the_form_for_one_client_is_used_where_it_is_the_same_function(
    make: Callable[[], nn.Module], size: int, quick: bool
) -> None:
    loss = loss_of(make, size)
    batch, model = Batch(dict(loss.task.train), rng.words(3)), loss.initial()
    before = tree.digest(model)
    alone, plain = loss.step_gradient(model, batch), loss.under_vmap().gradient(model, batch)
    assert alone[1].item() == pytest.approx(plain[1].item(), rel=1e-12) and tree.digest(model) == before
    for name, g in plain[0].items():
        torch.testing.assert_close(alone[0][name], g, rtol=0, atol=1e-12)
    assert any(isinstance(g, Product) for g in alone[0].values()) == quick
    for name, value in loss.under_vmap().metrics(model, batch).items():
        assert loss.metrics(model, batch)[name].item() == pytest.approx(value.item(), rel=1e-12)


def test_the_form_for_one_client_shares_tensors_and_replaces_supported_layers() -> None:
    module = large()
    quick = layers.one_client_form(module)
    assert quick is not None and {id(p) for p in quick.parameters()} == {id(p) for p in module.parameters()}
    assert [type(m) for m in quick.modules() if isinstance(m, nn.Conv2d)] == [nn.Conv2d, Conv3x3]
    assert all(type(m) is nn.Conv2d for m in module.modules() if isinstance(m, nn.Conv2d))
    assert layers.one_client_form(nn.Sequential(nn.Linear(4, 3), nn.ReLU())) is None


def test_a_loss_with_such_a_form_can_be_copied_and_pickled() -> None:
    import pickle

    loss = loss_of(large, 8)
    batch = Batch(dict(loss.task.train), rng.words(3))
    expected = tree.digest(loss.gradient(loss.initial(), batch)[0])
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert tree.digest(twin.gradient(twin.initial(), batch)[0]) == expected


def test_dropout_with_probability_one_gives_zeros() -> None:
    drop = layers.Dropout(1.0)
    assert not drop(torch.ones(5, 3)).any()
    drop.eval()
    assert drop(torch.ones(5, 3)).all()


@pytest.mark.parametrize("fast", [True, False])
def test_a_buffer_that_a_network_assigns_is_written_into_the_given_one(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training mode; the value of an evaluation is not kept, and a new shape is refused."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.count: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count = self.count + x.sum()
            return x

    monkeypatch.setattr(layers, "HAS_TENSOR_DICTS", fast)
    network, values = layers.FunctionalModule(Counting()), {"count": torch.tensor(3.0)}
    network(values, torch.ones(2))
    network(values, torch.ones(4))
    network.module.eval()
    network(values, torch.ones(8))
    assert (float(values["count"]), float(network.module.count)) == (9.0, 0.0)
    network.module.train()
    with pytest.raises(ValueError, match=r"buffer count from shape \(1,\) to \(3,\)"):
        layers._keep_assigned({"count": torch.zeros(3)}, {"count": torch.zeros(1)})
