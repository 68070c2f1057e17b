"""The gradient that is computed here is that of the module itself, or the network is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fl_sim import from_arrays, rng
from fl_sim.kernels.leave_vmap import is_wrapped
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks.gradient_check import _confirmed, gradient_problem, vmap_problem

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3


class _Again(torch.autograd.Function):
    """As ``torch.utils.checkpoint``, whose import takes seconds: the backward pass runs the module again."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor, *parameters: Tensor) -> Any:
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        with torch.enable_grad():
            y = ctx.module(ctx.saved_tensors[0])
        return None, None, *torch.autograd.grad(y, [*ctx.module.parameters()], outer)


class Again(nn.Module):
    """Computes its forward again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Any:
        return _Again.apply(self.inner, x, *self.inner.parameters())


class Twice(nn.Module):
    """Dropout that is called twice, and one layer under two names of a container."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3)
        self.more = nn.Sequential(self.drop, nn.Identity(), self.drop)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.more(self.drop(self.a(x))))
        return y


def with_backward_hook() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    module[1].register_full_backward_hook(lambda layer, inner, outer: (inner[0] * 2,))
    return module


def pruned() -> nn.Module:
    layer: nn.Module = prune.random_unstructured(nn.Linear(4, 3), "weight", 0.5)
    return layer


def with_forward_hooks() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    module[1].register_forward_hook(lambda layer, inputs, output: output * 2)
    module[2].register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    return module


def loss_of(make: Any, dtype: torch.dtype = torch.float64) -> Loss:
    with rng.keyed_globals(0):
        return Loss(make(), from_arrays(X, Y, outputs=3), dtype)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 3),
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        Twice,
        pruned,
        with_forward_hooks,
    ],
    ids=["linear", "batch norm", "weight norm", "dropout", "pruned", "forward hooks"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_networks_pass(make: Any, dtype: torch.dtype) -> None:
    loss = loss_of(make, dtype)
    assert gradient_problem(loss) == vmap_problem(loss) == ""
    assert not any(type(layer) is nn.Dropout for layer in loss.training.modules())  # each has a key


def test_a_difference_that_float64_does_not_have_is_rounding() -> None:
    """BatchNorm of two samples, as in MobileNet at one pixel, made float32 gradients differ by 2 %."""
    loss = Loss(Twice(), from_arrays(X, Y))
    assert _confirmed(lambda given: "differs" if given.dtype == torch.float32 else "", loss) == ""
    assert _confirmed(lambda given: "differs", loss) == "differs"


def test_sparse_gradients_are_dense_here() -> None:
    x = np.arange(24).reshape(12, 2) % 4
    loss = Loss(
        nn.Sequential(nn.Embedding(4, 3, sparse=True), nn.Flatten(), nn.Linear(6, 3)), from_arrays(x, Y, outputs=3)
    )
    assert gradient_problem(loss) == vmap_problem(loss) == ""
    batch = Batch({k: v[:5] for k, v in loss.task.train.items()}, rng.words(0))
    assert not loss.gradient(loss.initial(), batch)[0]["0.weight"].is_sparse


def test_a_forward_that_runs_again_in_the_backward_pass_is_found() -> None:
    assert "the gradient of inner.0.weight has the norm" in gradient_problem(loss_of(Again))


def test_a_hook_on_the_backward_pass_is_lost_under_vmap_only() -> None:
    loss = loss_of(with_backward_hook)
    assert gradient_problem(loss) == "" and "the gradient of 0.weight has the norm" in vmap_problem(loss)


class Keeps(nn.Module):
    """Keeps the output of a layer as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        self.kept = self.inner(x)
        return self.out(self.kept)


@pytest.mark.parametrize("make", [Keeps, lambda: nn.utils.weight_norm(nn.Linear(4, 3))])
def test_a_trial_under_vmap_leaves_no_tensor_of_it_in_the_network(make: Any) -> None:
    """Such a tensor cannot be sent to Ray's workers."""
    loss = loss_of(make)
    assert vmap_problem(loss) == ""
    for form in (loss._many, loss._plain):
        kept = [x for layer in form.training.module.modules() for x in vars(layer).values() if isinstance(x, Tensor)]
        assert not any(map(is_wrapped, kept))


def test_each_call_of_a_dropout_layer_has_a_mask_of_its_own() -> None:
    """The product of two independent masks of probability 1/2 keeps 1/4; one mask twice would keep 1/2."""
    layer = nn.Dropout(0.5)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.out = layer, nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(self.drop(self.drop(x)))
            return y

    loss = loss_of(Both)
    wide = torch.ones(4000, 4, dtype=torch.float64)
    batch = Batch({"x": wide, "y": torch.zeros(4000, dtype=torch.int64)}, rng.words(1))
    kept = loss.outputs(loss.initial(), batch, "drop")
    assert float((kept > 0).double().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(kept, loss.outputs(loss.initial(), batch, "drop"))
