"""The loss of a batch: gradients, masks, keyed dropout and augmentation, buffers."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.kernels import leave_vmap
from fl_sim.kernels.low_rank import Product
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.measures import cross_entropy
from fl_sim.learning.transform import Transform
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(10, 4)), DRAW.integers(0, 3, 10)


def network(middle: nn.Module | None = None) -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(4, 8), middle or nn.ReLU(), nn.Linear(8, 3))


def loss_of(module: nn.Module, x: Any = X, y: Any = Y) -> Loss:
    return Loss(module, from_arrays(x, y, x_test=x, y_test=y, outputs=3), torch.float64)


def batch_of(loss: Loss, rows: list[int], mask: list[bool] | None = None, key: int = 5) -> Batch:
    data = {k: v[rows] for k, v in loss.task.train.items()}
    return Batch(data, rng.words(key), None if mask is None else torch.tensor(mask))


def among_others(loss: Loss, model: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
    """The gradient of one of three clients under vmap, each with its own model."""
    grads, reported, buffers = torch.func.vmap(lambda own: loss.under_vmap().gradient(own, batch))(
        tree.stack([tree.scale(model, 2.0), model, tree.scale(model, -1.0)])
    )
    return tree.take(grads, 1), reported[1], tree.take(buffers, 1)


class Again(nn.Module):
    """A layer that runs twice and whose output is modified in place, and a layer whose weight is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(self.a(x).relu_()).sin_())
        return y * self.b.weight.square().sum()


def test_a_layer_that_runs_twice_and_a_weight_that_serves_elsewhere() -> None:
    with rng.keyed_globals(0):
        loss = loss_of(Again())
    batch = batch_of(loss, [0, 1, 2])
    grads, value, _ = among_others(loss, loss.initial(), batch)
    expected, same, _ = loss.gradient(loss.initial(), batch)
    assert value.item() == pytest.approx(same.item(), rel=1e-13)
    for k, g in expected.items():
        torch.testing.assert_close(grads[k], g, rtol=0, atol=1e-13)


class Written(nn.Module):
    """Modifies an input in place that a layer needs for its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        x += self.a(x)
        y: Tensor = self.b(x)
        return y


@pytest.mark.parametrize("gradient", [Loss.gradient, among_others])
def test_an_input_that_is_written_into_is_an_error(gradient: Any) -> None:
    loss = loss_of(Written())
    with pytest.raises(RuntimeError, match="inplace|written into"):
        gradient(loss, loss.initial(), batch_of(loss, [0, 1]))


def ordinary(loss: Loss, model: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
    """As ``among_others``, with a PyTorch that lacks the private names which ``leave_vmap`` uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leave_vmap, "AVAILABLE", False)
        return among_others(loss, model, batch)


def sampled(loss: Loss, model: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
    """As ``among_others``, as the mean of the samples' gradients: one ``vmap`` within another."""

    def of_client(own: Tree) -> tuple[Tree, Tensor]:
        def of_sample(row: Tree) -> tuple[Tree, Tensor]:
            return loss.under_vmap().gradient(own, Batch({k: v[None] for k, v in row.items()}, batch.words))[:2]

        grads, values = torch.func.vmap(of_sample)(batch.data)
        return {k: g.mean(0) for k, g in grads.items()}, values.mean()

    grads, values = torch.func.vmap(of_client)(tree.stack([tree.scale(model, 2.0), model, tree.scale(model, -1.0)]))
    return tree.take(grads, 1), values[1], {}


def test_the_gradient_of_a_weight_is_not_formed() -> None:
    loss, seen = loss_of(network()), []

    def one(own: Tree) -> Tensor:
        grads, value, _ = loss.under_vmap().step_gradient(own, batch_of(loss, [0, 1]))
        seen.extend(k for k, g in grads.items() if isinstance(g, Product) and g._formed is None)
        return value

    torch.func.vmap(one)(tree.stack([loss.initial()] * 2))
    assert seen == ["0.weight", "2.weight"]


@pytest.mark.parametrize("gradient", [Loss.gradient, among_others, ordinary, sampled])
@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=["rows", "rows of rows"])
def test_the_gradient_is_autograds(gradient: Any, shape: tuple[int, ...]) -> None:
    def mean(outputs: Tensor) -> Tensor:
        return outputs.reshape(len(outputs), -1, 3).mean(1)

    x = np.random.default_rng(1).normal(size=(6, *shape))
    module = network().double()
    task = replace(
        from_arrays(x, Y[:6], x_test=x, y_test=Y[:6], outputs=3),
        loss=lambda o, data: cross_entropy(mean(o), data),
        metrics={},
    )
    loss = Loss(module, task, torch.float64)
    value = F.cross_entropy(mean(module(torch.from_numpy(x))), torch.from_numpy(Y[:6]))
    value.backward()
    grads, reported, buffers = gradient(loss, loss.initial(), batch_of(loss, [0, 1, 2, 3, 4, 5]))
    assert reported.item() == pytest.approx(value.item(), rel=1e-12) and buffers == {}
    assert not any(g.requires_grad for g in grads.values()) and not reported.requires_grad
    for name, p in module.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, rtol=0, atol=1e-13)


def test_only_what_is_trainable_has_a_gradient() -> None:
    module = network()
    next(module.parameters()).requires_grad_(False)
    loss = loss_of(module)
    assert (
        set(loss.trainable)
        == set(loss.gradient(loss.initial(), batch_of(loss, [0, 1]))[0])
        == {"0.bias", "2.weight", "2.bias"}
    )
    assert set(loss.initial()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_the_users_module_is_not_touched() -> None:
    module = network(nn.Dropout(0.5))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    loss = loss_of(module)
    loss.initial()["0.weight"].zero_()
    assert type(module[1]) is nn.Dropout and module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()) and loss.initial()["0.weight"].any()


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.Dropout(0.5)], ids=["plain", "dropout"])
def test_padding_changes_nothing(middle: nn.Module) -> None:
    """Three samples, and the same three followed by two masked ones, give the same numbers, with dropout as well."""
    loss = loss_of(network(middle))
    short, padded = batch_of(loss, [0, 1, 2]), batch_of(loss, [0, 1, 2, 9, 9], [True, True, True, False, False])
    model = loss.initial()
    for a, b in zip(loss.gradient(model, short)[:2], loss.gradient(model, padded)[:2], strict=True):
        for x, y in zip(*((t.values() if isinstance(t, dict) else [t]) for t in (a, b)), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-14)
    assert loss.metrics(model, short)["accuracy"] == loss.metrics(model, padded)["accuracy"]
    assert (short.size, int(padded.size)) == (3, 3)


def test_a_step_without_real_samples_is_zero_and_finite() -> None:
    loss = loss_of(network())
    grads, value, _ = loss.gradient(loss.initial(), batch_of(loss, [0, 0], [False, False]))
    assert value.item() == 0 and all(not g.any() for g in grads.values())


class Twice(nn.Module):
    """Two dropout layers with p = 1/4 applied to a weight of ones: the outputs show which layers kept an element."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(300))
        self.first, self.nested = nn.Dropout(0.25), nn.Sequential(nn.Dropout(0.25))

    def forward(self, x: Tensor) -> Tensor:
        once = self.first(self.w.expand(len(x), -1))
        return torch.stack([once, self.nested(once)], dim=1)


def test_dropout_is_keyed_by_step_and_layer_and_keeps_its_share() -> None:
    seen: list[Tensor] = []

    def look(outputs: Tensor, batch: Tree) -> Tensor:
        seen.append(outputs.detach())
        return outputs.flatten(1).mean(1)

    task = from_arrays(np.zeros((200, 1)), np.zeros(200), x_test=np.zeros((1, 1)), y_test=np.zeros(1), loss=look)
    loss = Loss(Twice(), task, torch.float64)
    assert not loss.writes.copies
    seen.clear()  # two samples were tried
    for key in (1, 1, 2):
        loss(loss.initial(), Batch(dict(task.train), rng.words(key)))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    once, twice = seen[0][:, 0], seen[0][:, 1]
    assert once.unique().tolist() == pytest.approx([0.0, 4 / 3]) and twice.unique().tolist() == pytest.approx(
        [0.0, 16 / 9]
    )
    n = once.numel()  # 60 000 draws; five standard deviations of their mean are 5 (p (1 - p) / n)^1/2
    for kept, share in (
        (once, 0.75),
        (twice, 0.75**2),
    ):  # With equal masks in both layers, ``twice`` would keep 3/4, too.
        assert abs(float(kept.gt(0).double().mean()) - share) < 5 * (share * (1 - share) / n) ** 0.5
        assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)  # scaled by 1 / (1 - p)
    loss.metrics(loss.initial(), Batch(dict(task.train), rng.words(1)))
    assert torch.equal(seen[-1], torch.ones(200, 2, 300, dtype=torch.float64))


def test_dropout_is_the_same_for_many_clients_at_once() -> None:
    loss = loss_of(network(nn.Dropout(0.5)))
    words, model = rng.words(rng.keys(7, 3)), loss.initial()
    rows = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    x, y = loss.task.train["x"], loss.task.train["y"]

    def one(index: Tensor, key: Tensor) -> tuple[Tree, Tensor]:
        return loss.under_vmap().gradient(model, Batch({"x": x[index], "y": y[index]}, key))[:2]

    grads, values = torch.func.vmap(one, randomness="error")(rows, words)
    for c in range(3):
        alone, value, _ = loss.gradient(model, Batch({"x": x[rows[c]], "y": y[rows[c]]}, words[c]))
        assert value.item() == pytest.approx(values[c].item(), rel=1e-13)
        assert all(torch.allclose(grads[k][c], alone[k], rtol=0, atol=1e-14) for k in alone)


def test_evaluation_has_neither_dropout_nor_augmentation() -> None:
    pictures = DRAW.normal(size=(6, 1, 8, 8))
    task = from_arrays(pictures, Y[:6], x_test=pictures, y_test=Y[:6], outputs=3)
    task = copy.copy(task)
    object.__setattr__(task, "transform", Transform(augment=True))
    with rng.keyed_globals(0):
        module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    loss = Loss(module, task, torch.float64)
    batch = Batch(dict(task.train), rng.words(1))
    expected = F.cross_entropy(module.double().eval()(torch.from_numpy(pictures)), torch.from_numpy(Y[:6]))
    assert loss.metrics(loss.initial(), batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss(loss.initial(), batch).item() != pytest.approx(expected.item(), rel=1e-3)


def test_a_crop_out_of_a_reflected_picture_by_hand() -> None:
    """Pixel (r, c) of the result is (r + dy - 4, c + dx - 4) of the picture reflected at its edges, flipped or not."""
    x = torch.arange(12 * 6 * 6, dtype=torch.float64).reshape(12, 1, 6, 6)
    words = rng.words(11)
    done = Transform(augment=True)({"x": x}, words)["x"]

    def mirrored(i: int) -> int:
        return -i if i < 0 else 10 - i if i > 5 else i

    for b in range(12):
        dy, dx, flip = (float(rng.uniform(rng.fold(words, n), (12,))[b]) for n in range(3))
        for r in range(6):
            for c in range(6):
                column = 5 - c if flip < 0.5 else c
                assert done[b, 0, r, c] == x[b, 0, mirrored(r + int(dy * 9) - 4), mirrored(column + int(dx * 9) - 4)]


def test_batch_norm_returns_new_buffers_and_leaves_the_old_ones_alone() -> None:
    loss, module = loss_of(network(nn.BatchNorm1d(8))), network(nn.BatchNorm1d(8)).double()
    model = loss.initial()
    before = tree.digest(model)
    _, _, buffers = loss.gradient(model, batch_of(loss, [0, 1, 2, 3]))
    module(torch.from_numpy(X[:4]))
    assert tree.digest(model) == before and set(buffers) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, value in buffers.items():
        torch.testing.assert_close(value, module.state_dict()[name], rtol=0, atol=1e-14)
    assert buffers["1.num_batches_tracked"].dtype == torch.int64
    loss(model, batch_of(loss, [0, 1, 2, 3]))
    assert tree.digest(model) == before
    # Under torch.func, where a write into a captured tensor is an error:
    torch.func.grad(lambda p: loss({**model, **p}, batch_of(loss, [0, 1, 2, 3])))({k: model[k] for k in loss.trainable})
    assert tree.digest(model) == before


def test_pixels_are_numbers_and_labels_are_not() -> None:
    pixels = DRAW.integers(0, 256, (10, 4)).astype(np.uint8)
    loss = loss_of(network(), pixels)
    expected = F.cross_entropy(network().double()(torch.from_numpy(pixels).double() / 255), torch.from_numpy(Y))
    assert loss(loss.initial(), batch_of(loss, list(range(10)))).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.task.loss is cross_entropy and loss.task.train["x"].dtype == torch.uint8
