"""Outputs of a network and of its layers for a rule, and terms that a rule adds to the loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(12, 4)), np.arange(12) % 3


def loss_of(middle: nn.Module | None = None) -> Loss:
    with rng.keyed_globals(0):
        module = nn.Sequential(nn.Linear(4, 6), middle or nn.Tanh(), nn.Linear(6, 3))
    return Loss(module, from_arrays(X, Y, outputs=3), torch.float64)


def batch_of(loss: Loss, size: int = 5, mask: list[bool] | None = None) -> Batch:
    rows = {k: v[:size] for k, v in loss.task.train.items()}
    return Batch(rows, rng.words(7), None if mask is None else torch.tensor(mask))


def network(model: Tree, x: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs, output of the layer "1"), by hand."""
    hidden = torch.tanh(x @ model["0.weight"].T + model["0.bias"])
    return hidden @ model["2.weight"].T + model["2.bias"], hidden


def test_outputs_of_the_network_and_of_a_layer() -> None:
    loss = loss_of()
    model, batch = loss.initial(), batch_of(loss)
    for layer, expected in zip(("", "1"), network(model, batch.data["x"].double()), strict=True):
        torch.testing.assert_close(loss.outputs(model, batch, layer), expected)
        many = torch.func.vmap(lambda own, name=layer: loss.under_vmap().outputs(own, batch, name))
        torch.testing.assert_close(many(tree.stack([model, tree.scale(model, 2.0)]))[0], expected)
    with pytest.raises(ValueError, match="layer 'fc': the network has 0, 1, 2"):
        loss.outputs(model, batch, "fc")
    assert not loss._plain.training.module[1]._forward_hooks


def test_a_layer_that_is_not_called_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    loss = Loss(Idle(), from_arrays(X, Y, outputs=3), torch.float64)
    with pytest.raises(ValueError, match="layer 'idle': the network did not call it"):
        loss.outputs(loss.initial(), batch_of(loss), "idle")


def test_outputs_have_the_dropout_of_the_step_and_none_in_evaluation() -> None:
    loss = loss_of(nn.Dropout(0.5))
    model, batch = loss.initial(), batch_of(loss)
    hidden = batch.data["x"].double() @ model["0.weight"].T + model["0.bias"]
    kept = loss.outputs(model, batch, "1") / hidden
    assert set(kept.round(decimals=9).unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(loss.outputs(model, batch, "1", training=False), hidden)
    value = F.cross_entropy(loss.outputs(model, batch), batch.data["y"])
    torch.testing.assert_close(value, loss(model, batch))  # the same masks


def test_outputs_leave_running_statistics_alone() -> None:
    loss = loss_of(nn.BatchNorm1d(6))
    model, batch = loss.initial(), batch_of(loss)
    before = tree.clone(model)
    loss.outputs(model, batch)
    assert all(torch.equal(v, model[k]) for k, v in before.items())


@pytest.mark.parametrize("layer", ["", "1"])
@pytest.mark.parametrize("mask", [None, [True, True, False, True, False]])
def test_a_term_is_added_to_what_is_differentiated(layer: str, mask: list[bool] | None) -> None:
    """Gradient by torch of CE + mean of squared outputs over real samples; the value is the CE alone; loop = vmap."""
    loss = loss_of()
    model, batch = loss.initial(), batch_of(loss, 5, mask)
    rows = [i for i in range(5) if mask is None or mask[i]]
    leaves = {k: v.clone().requires_grad_() for k, v in model.items()}
    whole, inner = network(leaves, batch.data["x"][rows].double())
    value = F.cross_entropy(whole, batch.data["y"][rows])
    expected = torch.autograd.grad(value + 0.3 * (inner if layer else whole).square().sum(1).mean(), [*leaves.values()])

    def term(outputs: Tensor, samples: Tree) -> Tensor:
        assert samples["x"].dtype == torch.float64
        return 0.3 * outputs.square().sum(1)

    alone = loss.gradient(model, batch, plus=term, layer=layer)
    inside = loss.under_vmap()
    many = torch.func.vmap(lambda own: inside.gradient(own, batch, plus=term, layer=layer)[:2])(
        tree.stack([tree.scale(model, 2.0), model])
    )
    for grads, reported in (alone[:2], (tree.take(many[0], 1), many[1][1])):
        assert float(reported) == pytest.approx(value.item(), rel=1e-12)
        for name, g in zip(leaves, expected, strict=True):
            torch.testing.assert_close(grads[name], g, rtol=1e-10, atol=1e-13)


def test_a_term_for_the_whole_batch_and_one_of_another_shape() -> None:
    """A number () counts as it is; the statistics of BatchNorm are still those of the step."""
    loss = loss_of(nn.BatchNorm1d(6))
    model, batch = loss.initial(), batch_of(loss)
    plain, _, buffers = loss.gradient(model, batch)
    grads, _, same = loss.gradient(model, batch, plus=lambda outputs, samples: outputs.sum() * 0.0)
    for name, g in plain.items():
        torch.testing.assert_close(grads[name], g)
    assert int(same["1.num_batches_tracked"]) == 1 and torch.equal(same["1.running_mean"], buffers["1.running_mean"])
    with pytest.raises(ValueError, match=r"plus gives the shape \(5, 3\) for 5 samples; it must be \(5,\) or \(\)"):
        loss.gradient(model, batch, plus=lambda outputs, samples: outputs)
