"""Requirements on every model, then the size and the layers of each model."""

import contextlib
import functools
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from fl_sim import registry, rng, tree

MODELS = registry.names("clients.models", "model")
BATCH_NORM = {"cnn-bn"}
"""Networks with BatchNorm, which run on the loop alone, and whose samples are independent in evaluation only."""
OPTIONS: dict[str, dict[str, Any]] = {"conv4": {"norm": "group"}}
"""Parameters with which a network's samples are independent; its default is BatchNorm without running statistics."""
TOKENS = {"char-lstm"}
"""Networks of sequences of integers (T,), which give outputs (T, K)."""
SHAPES = [(1,), (60,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 24)]
"""Samples of sinusoid, synthetic, digits, mnist, cifar10, and pictures that are not square."""


def build(name: str, inputs: tuple[int, ...], outputs: int = 10, seed: int = 0, **parameters: Any) -> nn.Module:
    with rng.keyed_globals(rng.key(seed, "model")):
        model: nn.Module = MODELS[name](inputs, outputs, **{**OPTIONS.get(name, {}), **parameters})
    return model


def samples(name: str, *shape: int) -> Tensor:
    """Random samples, float64 or integers 0..6."""
    return torch.randint(0, 7, shape) if name in TOKENS else torch.rand(*shape, dtype=torch.float64)


@functools.cache
def takes(name: str) -> list[tuple[int, ...]]:
    """The shapes that a model accepts."""
    taken = []
    for shape in SHAPES:
        with contextlib.suppress(ValueError):
            build(name, shape)
            taken.append(shape)
    return taken


def smallest(name: str) -> tuple[int, ...]:
    return takes(name)[0]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_promised_models_are_there() -> None:
    assert {"lr", "2nn", "mlp", "lenet", "cnn", "sine-mlp", "resnet18", "cnn-gn", "cnn-bn"} <= set(MODELS)
    assert {"conv4", "char-lstm"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_it_gives_outputs_for_each_sample_alone(self, name: str, shape: tuple[int, ...]) -> None:
        """An output depends on its sample only: true of GroupNorm, false of BatchNorm in training."""
        if shape not in takes(name):
            with pytest.raises(
                ValueError,
                match=re.escape(f"model.name = {name!r}: cannot take samples of shape {shape}") + ".*2nn, mlp",
            ):
                build(name, shape)
            return
        model = build(name, shape, outputs=7).double().train(name not in BATCH_NORM)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        x = samples(name, 3, *shape)
        alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
        assert model(x).shape == ((3, *shape, 7) if name in TOKENS else (3, 7))
        torch.testing.assert_close(model(x), alone, rtol=1e-9, atol=1e-12)
        assert (model(x)[0] - model(x)[1]).abs().max() > 1e-9  # The output does depend on the sample.

    def test_it_takes_some_task(self, name: str) -> None:
        assert takes(name)

    def test_many_weights_run_as_one(self, name: str) -> None:
        """vmap over three clients' weights gives the gradients of the three models computed one after another."""
        if name in BATCH_NORM:
            return
        shape = smallest(name)
        models = [build(name, shape, seed=s).double().eval() for s in range(3)]
        x, y = samples(name, 3, 4, *shape), torch.arange(12).reshape(3, 4) % 10
        y = y[..., None] if name in TOKENS else y

        def loss(weights: dict[str, Tensor], samples: Tensor, labels: Tensor) -> Tensor:
            outputs = functional_call(models[0], weights, (samples,))
            return nn.functional.cross_entropy(outputs.flatten(0, -2), labels.flatten())

        weights, buffers = stack_module_state(models)
        assert not buffers
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # The warning "no batching rule" means a slow path.
            together = vmap(grad(loss))(weights, x, y)
        for i, model in enumerate(models):
            single = grad(loss)({k: v.detach() for k, v in model.named_parameters()}, x[i], y[i])
            for k, v in single.items():
                torch.testing.assert_close(together[k][i], v, rtol=1e-8, atol=1e-11)
            assert tree.norm(single) > 0

    def test_it_has_no_batch_norm_and_nothing_in_place(self, name: str) -> None:
        layers = list(build(name, smallest(name)).modules())
        assert any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in layers) == (name in BATCH_NORM)
        assert not any(getattr(layer, "inplace", False) for layer in layers)

    def test_its_weights_are_keyed(self, name: str) -> None:
        a, b, c = (tree.digest(build(name, smallest(name), seed=s).state_dict()) for s in (0, 0, 1))
        assert a == b != c

    def test_samples_without_axes_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"model\.name = '{name}': cannot take samples of shape \(\)"):
            build(name, ())


@pytest.mark.parametrize(
    "name, shape, outputs, parameters, expected",
    [
        ("lr", (1, 28, 28), 10, {}, 784 * 10 + 10),
        ("2nn", (1, 28, 28), 10, {}, 199_210),  # McMahan 2017: 785 * 200 + 201 * 200 + 201 * 10
        ("mlp", (1, 28, 28), 10, {}, 785 * 64 + 65 * 10),
        ("mlp", (60,), 3, {"hidden": 5}, 61 * 5 + 6 * 3),
        ("sine-mlp", (1,), 1, {}, 2 * 64 + 65 * 64 + 65),
        ("lenet", (3, 32, 32), 10, {}, 62_006),  # NIID-Bench; 76 * 6 + 151 * 16 + 401 * 120 + 121 * 84 + 85 * 10
        ("lenet", (1, 28, 28), 10, {}, 26 * 6 + 151 * 16 + 257 * 120 + 121 * 84 + 85 * 10),
        ("cnn-20-50", (1, 28, 28), 10, {}, 431_080),  # 26 * 20 + 501 * 50 + 801 * 500 + 501 * 10: 800-500-10
        ("cnn", (3, 32, 32), 10, {}, 1_626_442),  # pfl-research; 28 * 32 + 289 * 64 + 12545 * 128 + 129 * 10
        ("cnn-gn", (3, 32, 32), 10, {}, 28 * 16 + 145 * 32 + 289 * 64 + 2 * (16 + 32 + 64) + 65 * 10),
        ("cnn-gn", (3, 32, 32), 10, {"depth": 2}, 73_178),
        ("cnn-pool", (3, 32, 32), 10, {}, 545_098),  # founding text: 28 * 32 + 289 * 64 + 4097 * 128 + 129 * 10
        ("conv4", (1, 28, 28), 5, {"norm": "batch"}, 113_221),  # Reptile: 10 * 64 + 3 * 577 * 64 + 4 * 128 + 257 * 5
        ("conv4", (1, 28, 28), 5, {"pool": True, "norm": "none"}, 10 * 64 + 3 * 577 * 64 + 65 * 5),  # 14, 7, 3, 1
        # 76 * 8 + (8 + 1 + 256) * 1024 + (256 + 1 + 256) * 1024 + 257 * 76
        ("char-lstm", (80,), 76, {}, 608 + 265 * 1024 + 513 * 1024 + 257 * 76),
        ("cnn-bn", (1, 28, 28), 10, {}, 10 * 16 + 145 * 32 + 2 * (16 + 32) + (32 * 49 + 1) * 10),
        (
            "resnet18",
            (3, 32, 32),
            10,
            {},
            11_173_962,
        ),  # torchvision's resnet18 with a 3x3 stem and 10 classes: the same number
    ],
)
def test_sizes(name: str, shape: tuple[int, ...], outputs: int, parameters: dict[str, int], expected: int) -> None:
    assert count(build(name, shape, outputs, **parameters)) == expected


def test_resnet18_has_the_parameters_of_torchvisions() -> None:
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    ours = build("resnet18", (3, 32, 32))
    assert [p.shape for p in ours.parameters() if p.ndim > 1 and p.shape[-1] != 1] == [
        p.shape for p in theirs.parameters() if p.ndim > 1 and p.shape[-1] != 1
    ]
    assert count(ours) == count(theirs)
    assert {m.num_groups for m in ours.modules() if isinstance(m, nn.GroupNorm)} == {2}
    assert {
        m.num_groups for m in build("resnet18", (3, 32, 32), groups=32).modules() if isinstance(m, nn.GroupNorm)
    } == {32}


def test_resnet18_halves_the_picture_three_times() -> None:
    seen: list[torch.Size] = []
    model = build("resnet18", (3, 32, 32))
    (pool,) = (m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    model(torch.zeros(1, 3, 32, 32))
    assert seen == [(1, 512, 4, 4)]  # 32, 32, 16, 8, 4: the first layer and the first stage keep the size


@pytest.mark.parametrize(
    "name, published",
    [
        ("cnn", ["0", "1", "2", "relu", "3", "4", "7", "8", "10"]),  # pfl-research: ReLU, pooling, flattening
        ("lenet", ["0", "relu", "1", "3", "relu", "4", "6", "7", "8", "9", "10", "11"]),
    ],
)
def test_relu_commutes_with_pooling_and_flattening(name: str, published: list[str]) -> None:
    """The same layers in the published order give the same outputs and gradients, bit for bit."""
    model, x = build(name, (3, 32, 32)).eval(), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = nn.Sequential(*(nn.ReLU() if layer == "relu" else model.get_submodule(layer) for layer in published))
    weights = list(model.parameters())
    ours, theirs = model(x), plain(x)
    assert torch.equal(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.sin().sum(), weights), torch.autograd.grad(theirs.sin().sum(), weights), strict=True
    ):
        assert torch.equal(a, b)


def test_lenet_needs_sixteen_pixels_each_way() -> None:
    assert build("lenet", (1, 16, 16))(torch.rand(2, 1, 16, 16)).shape == (2, 10)  # 16 -> 12 -> 6 -> 2 -> 1
    for shape in [(1, 15, 16), (1, 16, 15)]:
        with pytest.raises(
            ValueError, match=r"at least 16 x 16 pixels; models for any shape: lr, 2nn, mlp; for small pictures: cnn-gn"
        ):
            build("lenet", shape)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("mlp", {"hidden": 0}),
        ("sine-mlp", {"hidden": -1}),
        ("cnn-gn", {"depth": 0}),
        ("cnn-gn", {"width": 5}),
        ("cnn-bn", {"width": 0}),
        ("conv4", {"width": 0}),
        ("conv4", {"width": 12}),
        ("char-lstm", {"layers": 0}),
        ("resnet18", {"groups": 3}),
        ("lenet", {"projection": -1}),
        ("cnn-pool", {"pool": 0}),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict[str, int]) -> None:
    ((key, value),) = parameters.items()
    with pytest.raises(ValueError, match=rf"model\.{key} = {value}: "):
        build(name, (32,) if name in TOKENS else (3, 32, 32), **parameters)


@pytest.mark.parametrize(
    "name, shape, features",
    [
        ("mlp", (1, 8, 8), 64),
        ("2nn", (1, 8, 8), 200),
        ("lenet", (1, 28, 28), 84),
        ("cnn", (1, 8, 8), 128),
        ("cnn-gn", (1, 8, 8), 64),
        ("cnn-bn", (1, 8, 8), 128),
        ("resnet18", (1, 8, 8), 512),
    ],
)
def test_a_projection_head_is_two_layers_before_the_last(name: str, shape: tuple[int, ...], features: int) -> None:
    plain, model = build(name, shape).eval(), build(name, shape, projection=7).eval()
    assert {"projection"} == set(dict(model.named_children())) - {*dict(plain.named_children()), str(len(plain))}
    *encoder, head, last = model.children()
    assert [type(layer) for layer in head.children()] == [nn.Linear, nn.ReLU, nn.Linear]
    first, _, second = head.children()
    assert [tuple(layer.weight.shape) for layer in (first, second, last)] == [
        (features, features),
        (7, features),
        (10, 7),
    ]
    x = torch.rand(2, *shape)
    hidden = nn.Sequential(*list(plain.children())[:-1])(x)
    if name != "cnn":  # whose weights are drawn again once all layers are there
        torch.testing.assert_close(nn.Sequential(*encoder)(x), hidden, rtol=0, atol=0)
    assert count(model) == count(plain) + features**2 + features + 7 * features + 7 + 80 - 10 * (features + 1)


def test_the_gradient_of_l2_pooling_is_0_where_a_window_is_0() -> None:
    """Behind a ReLU windows of zeros are common, and the derivative of a root at 0 is infinite."""
    [layer, *_] = [m for m in build("cnn-pool", (1, 4, 4), pool="l2") if isinstance(m, nn.LPPool2d)]
    x = torch.tensor([[[[0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 4.0, 0.0]]]], requires_grad=True)
    assert layer(x).tolist() == [[[[0.0, 5.0]]]]
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([[[[0.0, 0.0, 0.6, 0.0], [0.0, 0.0, 0.8, 0.0]]]]))


def test_mlp_is_its_formula() -> None:
    model = build("mlp", (2,), outputs=1, hidden=2)
    weights = [
        torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([[2.0, 3.0]]),
        torch.tensor([-1.0]),
    ]
    with torch.no_grad():
        for p, w in zip(model.parameters(), weights, strict=True):
            p.copy_(w)
    # (1, 3): relu(1, -3 + 1) = (1, 0) -> 2 - 1 = 1;  (-1, -1): relu(-1, 2) = (0, 2) -> 6 - 1 = 5
    assert model(torch.tensor([[1.0, 3.0], [-1.0, -1.0]])).flatten().tolist() == [1.0, 5.0]
