"""Copies and casts of modules; networks whose weights are computed from other tensors before each use."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fl_sim import from_arrays, rng, tree
from fl_sim.kernels.module_copies import cast, copy_of
from fl_sim.learning.loss import Batch, Loss

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(12, 4)), np.arange(12) % 3


def network(wrap: Any) -> nn.Module:
    with rng.keyed_globals(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old functions are deprecated, and still used
        return nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()


def test_a_copy_has_no_graph_and_shares_what_it_is_told_to() -> None:
    module = network(nn.utils.weight_norm)
    assert not module[0].weight.is_leaf
    shared = module[0].weight_g
    new: Any = copy_of(module, (shared,))
    assert new[0].weight.is_leaf and new[0].weight_g is shared and new[0].weight_v is not module[0].weight_v
    torch.testing.assert_close(new(torch.ones(2, 4).double()), module(torch.ones(2, 4).double()))
    assert not module[0].weight.is_leaf


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [nn.utils.weight_norm, nn.utils.spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm],
    ids=["weight_norm", "spectral_norm", "parametrized weight_norm", "parametrized spectral_norm"],
)
def test_gradients_reach_the_tensors_behind_a_computed_weight(wrap: Any, many: bool) -> None:
    """They are those of plain torch, and so are the vectors that a spectral norm writes in place.

    vmap cannot do the latter, and says so, so that a run goes on with the loop.
    """
    module = network(wrap)
    loss = Loss(module, from_arrays(X, Y, outputs=3), torch.float64)
    batch = Batch({k: v[:5] for k, v in loss.task.train.items()}, rng.words(0))
    start, inner = loss.initial(), loss.under_vmap()
    F.cross_entropy(module(batch.data["x"].double()), batch.data["y"]).backward()
    if many and loss.buffers:
        with pytest.raises(RuntimeError, match="Batching rule not implemented"):
            torch.func.vmap(lambda own: inner.gradient(own, batch))(tree.stack([start, start]))
        return
    if many:
        stacked = torch.func.vmap(lambda own: inner.gradient(own, batch))(tree.stack([start, start]))
        grads, buffers = tree.take(stacked[0], 0), tree.take(stacked[2], 0)
    else:
        grads, _, buffers = loss.gradient(start, batch)
    for name, value in buffers.items():
        torch.testing.assert_close(value, module.get_buffer(name), rtol=1e-12, atol=1e-14)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-9, atol=1e-13)


def test_a_cast_keeps_complex_numbers_and_shared_tensors() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1 + 2j]))
            self.b = self.a
            self.register_buffer("c", torch.tensor([3.0]))
            self.register_buffer("d", self.get_buffer("c"))
            self.register_buffer("n", torch.tensor([3]))

        def forward(self, x: Tensor) -> Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a cast that drops the imaginary part
        new: Any = cast(Turned(), torch.float64, torch.device("cpu"))
    assert new.a is new.b and new.a.dtype == torch.complex128 and new.a.item() == 1 + 2j
    assert new.c is new.d and new.c.dtype == torch.float64 and new.n.dtype == torch.int64
