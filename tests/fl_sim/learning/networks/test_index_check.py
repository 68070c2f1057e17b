"""Indices outside of an embedding or of the outputs are found in every row, before vmap looks them up elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clients.network import network
from fl_sim import Task
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks.index_check import index_problem
from fl_sim.tree import Tree

IDS, Y = torch.arange(40).reshape(20, 2) % 3, torch.arange(20) % 2


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(8, 2))


class Columns(nn.Module):
    """A table of floats with a category in each column, each with an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Embedding(2, 3), nn.Embedding(30, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.cat([self.a(x[:, 0].long()), self.b(x[:, 1].long())], 1))


class Picky(nn.Module):
    """Refuses made-up samples: each of its samples must hold a 0, which the largest numbers of all places lack."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = embedding()

    def forward(self, x: Tensor) -> Any:
        if bool((x != 0).all(1).any()):
            raise IndexError("index out of range")
        return self.inner(x)


def picked(outputs: Tensor, batch: Tree) -> Tensor:
    return F.cross_entropy(outputs, batch["y"], reduction="none")


def with_value(values: Tensor, row: int, value: int) -> Tensor:
    """``values`` with another number in one row, at its last place."""
    changed = values.clone()
    changed.reshape(len(changed), -1)[row, -1] = value
    return changed


def problem(module: nn.Module, x: Tensor, y: Tensor = Y, test: Tensor | None = None, **more: Any) -> str:
    half = {} if test is None else {"x": test, "y": y}
    return index_problem(Loss(module, Task("ids", {"x": x, "y": y}, half, 2, **more)))


@pytest.mark.parametrize("value", [3, -1])
def test_an_id_outside_of_an_embedding_is_found_in_any_row_of_both_halves(value: int) -> None:
    assert problem(embedding(), IDS, test=IDS) == ""
    stray = with_value(IDS, 11, value)
    assert problem(embedding(), stray).startswith("train row 11 (x of ")
    assert problem(embedding(), IDS, test=stray).startswith("test row 11 (x of ")
    assert "IndexError: index out of range in self" in problem(embedding(), stray)


def test_each_column_of_floats_is_checked_by_its_own_numbers() -> None:
    table = torch.stack([torch.arange(20) % 2, torch.arange(20) + 5], 1).float()
    assert problem(Columns(), table) == ""
    assert problem(Columns(), torch.where(torch.arange(40).reshape(20, 2) == 14, 2.0, table)).startswith(
        "train row 7 ("
    )


def test_a_target_that_a_loss_of_the_users_looks_up_is_found() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    assert problem(module, IDS.float(), loss=picked) == ""
    assert "train row 11 (y of 2)" in problem(module, IDS.float(), with_value(Y, 11, 2), loss=picked)


def test_a_network_that_fails_on_made_up_samples_alone_is_taken() -> None:
    rows = torch.tensor([[0, 1], [0, 2], [1, 0], [2, 0]])
    assert problem(Picky(), rows, Y[:4]) == ""


def test_a_network_is_refused_before_the_run() -> None:
    """Under vmap the id 3 of client 0 is the id 0 of client 1: PyTorch raises nothing."""
    weights = torch.arange(6.0).reshape(2, 3, 1)
    seen = torch.func.vmap(F.embedding)(torch.tensor([[3], [0]]), weights)
    assert seen.flatten().tolist() == [3.0, 3.0]
    task = Task("ids", {"x": with_value(IDS, 11, 3), "y": Y}, {}, 2)
    with pytest.raises(ConfigError, match=r"task.name = 'ids': train row 11 \(x of .*an index must lie in 0..size-1"):
        network(embedding(), {}, task, 0, "own:Net", "auto")
    assert network(embedding(), {}, Task("ids", {"x": IDS, "y": Y}, {}, 2), 0, "own:Net", "auto").engine.name == "vmap"


def test_flags_as_inputs_are_looked_at() -> None:
    flags = torch.from_numpy(np.arange(40).reshape(20, 2) % 2 == 0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    assert problem(net, flags) == ""  # it cannot take them, which the probe says
