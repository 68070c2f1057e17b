"""Writes by a network, a loss or a metric are seen when two samples are tried, however they are made."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.learner import probe
from fl_sim import from_arrays, rng, tree
from fl_sim.errors import ConfigError
from fl_sim.kernels import in_place
from fl_sim.learning.loss import Batch, Loss
from fl_sim.tree import Tree

X, Y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[1.0], [2.0], [3.0]])


class Net(nn.Module):
    """A linear layer, after or before ``act(self, x)``."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(2, 1), act
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("memo", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.act(self, x)
        y: Tensor = self.layer(x)
        return y


def by_numpy(x: Tensor) -> None:
    x.detach().numpy()[:] = 0


def loss_of(act: Any = lambda net, x: None, loss: Any = None, metric: Any = None) -> Loss:
    task = from_arrays(X, Y, x_test=X, y_test=Y, loss=loss, metrics={"m": metric} if metric else None)
    return Loss(Net(act), task, torch.float64)


def squares(outputs: Tensor, batch: Tree) -> Tensor:
    return (outputs - batch["y"]).square().flatten(1).mean(1)


@pytest.mark.parametrize(
    "act",
    [
        lambda net, x: x.sub_(0.5),
        lambda net, x: x.data.sub_(0.5),
        lambda net, x: by_numpy(x),
        lambda net, x: x[0].relu_(),  # changes no value of these samples, but would change others
        lambda net, x: None if net.training else x.mul_(2),
        lambda net, x: None if net.training else net.count.add_(1),
        lambda net, x: 1 / 0,
    ],
)
def test_a_network_that_writes_gets_copies(act: Any) -> None:
    assert replace(loss_of(act).writes, buffers=set()) == in_place.Writes(copies=True)


def test_buffers_that_training_writes_are_known_by_name() -> None:
    """All of them where the network raises, whose writes are not known then."""
    assert loss_of(lambda net, x: net.count.add_(1) if net.training else None).writes.buffers == {"count"}
    assert loss_of(lambda net, x: 1 / 0 if net.training else None).writes.buffers == {"count"}
    for act in (lambda net, x: x.sub_(0.5), lambda net, x: None, lambda net, x: None if net.training else 1 / 0):
        assert loss_of(act).writes.buffers == set()


def test_a_network_that_does_not_gets_the_samples_themselves() -> None:
    seen: list[int] = []
    loss = loss_of(lambda net, x: seen.append(x.data_ptr()))
    assert loss.writes == in_place.Writes()
    data = dict(loss.task.train)
    loss.metrics(loss.initial(), Batch(data, rng.words(0)))
    assert seen[-1] == data["x"].data_ptr()
    assert not loss_of(lambda net, x: net.count.add_(1) if net.training else None).writes.copies


@pytest.mark.parametrize(
    "function",
    [
        lambda o, b: squares(o.exp_(), b),
        lambda o, b: squares(o, {"y": b["y"].sub_(1)}),
        lambda o, b: squares(o, {"y": b["y"]}) * b["x"].zero_().sum(),
    ],
)
def test_a_loss_or_a_metric_that_writes_gets_copies(function: Any) -> None:
    assert loss_of(loss=function).writes.copies and loss_of(metric=function).writes.copies
    assert not loss_of(loss=squares, metric=squares).writes.copies


def test_outputs_of_several_parts_are_copied_one_by_one() -> None:
    part = torch.zeros(2)
    copy = in_place.copied({"a": (part, [part]), "b": 3})
    assert copy["b"] == 3 and torch.equal(copy["a"][0], part) and torch.equal(copy["a"][1][0], part)
    assert part.data_ptr() not in (copy["a"][0].data_ptr(), copy["a"][1][0].data_ptr())


@pytest.mark.parametrize(
    "act, named",
    [
        (lambda net, x: net.layer.weight.data.add_(1), "layer.weight, where the next client"),
        (lambda net, x: net.memo.add_(1), r"memo \(persistent=False\)"),
    ],
)
def test_a_network_that_changes_itself_is_refused_by_name(act: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        probe(loss_of(act), "net", "arrays")


def test_a_write_that_depends_on_the_samples_is_an_error() -> None:
    loss = loss_of(lambda net, x: x.sub_(1) if x.max() > 5 else None)
    assert not loss.writes.copies
    for use in (loss.metrics, loss.gradient):
        with pytest.raises(RuntimeError, match="wrote into x of a batch"):
            use(loss.initial(), Batch(tree.clone(loss.task.train), rng.words(0)))


def test_a_metric_whose_write_depends_on_the_samples_is_an_error() -> None:
    """It would change the outputs that the next metric reads."""
    loss = loss_of(metric=lambda o, b: squares(o.relu_() if b["x"].max() > 5 else o, b))
    with pytest.raises(RuntimeError, match="wrote into outputs of a batch"):
        loss.metrics(loss.initial(), Batch(dict(loss.task.train), rng.words(0)))


@pytest.mark.parametrize("transform", [torch.func.vmap, lambda f: torch.func.vmap(torch.func.grad(f))])
def test_a_write_under_vmap_that_depends_on_the_samples_is_an_error(transform: Any) -> None:
    """A tensor that is wrapped counts no writes itself."""

    def one(x: Tensor) -> Tensor:
        return in_place.call(lambda o, b: o.mul_(2).sum(), x * 1, {"y": x.detach()}, False)

    with pytest.raises(RuntimeError, match="wrote into outputs of a batch"):
        transform(one)(torch.ones(3, 2))

    def other(x: Tensor) -> Tensor:
        return in_place.call(lambda o, b: o.sum() + b["y"].zero_().sum(), x * 1, {"y": x.detach() * 1}, False)

    with pytest.raises(RuntimeError, match="wrote into y of a batch"):
        transform(other)(torch.ones(3, 2))


def test_evaluation_changes_no_buffer_of_the_model() -> None:
    loss = loss_of(lambda net, x: None if net.training else net.count.add_(1))
    model, batch = loss.initial(), Batch(dict(loss.task.train), rng.words(0))
    loss.metrics(model, batch)
    loss.evaluated(model, batch)
    assert float(model["count"]) == 0


@pytest.mark.parametrize("copies", [False, True])
def test_what_a_function_puts_into_a_dict_reaches_no_other_function(copies: bool) -> None:
    """``batch["y"] = ...`` writes into no tensor, and so is seen by no counter."""
    outputs, data = {"a": torch.ones(2), "b": [torch.ones(2)]}, {"y": torch.zeros(2)}

    def renamed(o: Any, b: Tree) -> Tensor:
        b["y"] = b["y"] + 1
        o["a"] = o["a"] * 5
        o["b"].append(o["a"])
        return torch.as_tensor(o["a"] - b["y"])

    for _ in range(2):
        assert in_place.call(renamed, outputs, data, copies).tolist() == [4.0, 4.0]
    assert data["y"].tolist() == [0, 0] and len(outputs["b"]) == 1
