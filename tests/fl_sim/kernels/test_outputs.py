"""Outputs that are tuples, lists, dicts and dataclasses of tensors."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl_sim import from_arrays, rng, tree
from fl_sim.kernels import outputs
from fl_sim.learning.loss import Batch, Loss
from fl_sim.tree import Tree


class Pair(NamedTuple):
    mean: Any
    spread: Any


@dataclass
class Answer:
    logits: Any
    more: Any = None


def every_kind(x: Tensor) -> Any:
    count = torch.tensor([1, 2])
    return [x, (x + 1, None), Pair(x + 2, 3.5), OrderedDict(a=x + 3, b={"c": count}), Answer(x + 4, "word")]


def test_tensors_of_every_kind_in_order() -> None:
    x = torch.zeros(2)
    assert [float(t[0]) for t in outputs.tensors(every_kind(x))] == [0, 1, 2, 3, 1, 4]
    with pytest.raises(TypeError, match="type object: no tensor"):
        outputs.tensors([object()])


def test_a_cast_keeps_the_kinds_and_whole_numbers() -> None:
    given = every_kind(torch.zeros(2))
    new = outputs.to(given, torch.float64)
    assert [t.dtype for t in outputs.tensors(new)] == [torch.float64] * 4 + [torch.int64, torch.float64]
    assert [type(part) for part in new] == [type(part) for part in given] and new[2].spread == 3.5
    largest = outputs.to(torch.zeros(2, 3).max(1), torch.float64)
    assert isinstance(largest, torch.return_types.max) and largest.values.dtype == torch.float64
    assert all(t.dtype == torch.float32 for t in outputs.tensors(given)[:4]) and new[4].more == "word"


def test_agreement_is_of_shapes_and_values() -> None:
    x = torch.ones(2)
    assert outputs.agree((x, {"a": x}), (x + 1e-9, {"a": x}), 0, 1e-6)
    for other in ((x, {"a": x + 1e-3}), (x,), (x, {"a": x[:1]})):
        assert not outputs.agree((x, {"a": x}), other, 0, 1e-6)


class Autoencoder(nn.Module):
    """Convolutions, whose faster form is compared with the plain one before it is used; the answer is a tuple."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind, self.conv, self.mean, self.back = kind, nn.Conv2d(1, 2, 3), nn.Linear(8, 2), nn.Linear(2, 16)

    def forward(self, x: Tensor) -> Any:
        z = self.mean(self.conv(x).relu().flatten(1))
        if self.kind == "training":
            return (self.back(z), z) if self.training else self.back(z)
        return {tuple: lambda a, b: (a, b), dict: lambda a, b: {"y": a, "z": b}, Answer: Answer}[self.kind](
            self.back(z), z
        )


def squared(answer: Any, batch: Tree) -> Tensor:
    """Of the first tensor of an answer of any kind, and the norm of the second where there is one."""
    first, *rest = outputs.tensors(answer)
    error = (first - batch["x"].flatten(1)).square().mean(1)
    return error + 0.01 * rest[0].square().sum(1) if rest else error


@pytest.mark.parametrize("kind", [tuple, dict, Answer, "training"])
def test_convolutions_with_answers_of_any_kind_take_the_fast_form(kind: Any) -> None:
    """Value and gradient are those of plain torch, on the loop and under vmap; evaluation has the value too."""
    x = np.random.default_rng(0).normal(size=(4, 1, 4, 4))
    with rng.keyed_globals(0):
        module = Autoencoder(kind).double()
    loss = Loss(module, from_arrays(x, x, loss=squared, metrics={}), torch.float64)
    batch = Batch(loss.task.train, rng.words(0))
    assert loss._alone is not loss._plain
    expected = squared(module(batch.data["x"]), batch.data).mean()
    expected.backward()
    grads, value, _ = loss.gradient(loss.initial(), batch)
    many = torch.func.vmap(lambda own: loss.under_vmap().gradient(own, batch)[0])(tree.stack([loss.initial()] * 2))
    assert float(value) == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(many[name][1], parameter.grad, rtol=1e-9, atol=1e-12)
    module.eval()
    evaluated = squared(module(batch.data["x"]), batch.data).mean()
    assert float(loss.metrics(loss.initial(), batch)["loss"]) == pytest.approx(evaluated.item(), rel=1e-12)


def test_half_precision_products_give_full_precision_outputs() -> None:
    x = np.random.default_rng(0).normal(size=(4, 1, 4, 4)).astype("f")
    seen: list[torch.dtype] = []

    def noted(answer: Any, batch: Tree) -> Tensor:
        seen.extend(t.dtype for t in outputs.tensors(answer))
        return F.mse_loss(answer[0], batch["x"].flatten(1), reduction="none").mean(1)

    loss = Loss(Autoencoder(tuple), from_arrays(x, x, loss=noted, metrics={}), precision="bf16")
    loss.gradient(loss.initial(), Batch(loss.task.train, rng.words(0)))
    assert set(seen) == {torch.float32}
