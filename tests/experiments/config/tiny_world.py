"""A tiny task and networks by name, for runs, forks, resumes and deployments that change one setting each."""

from collections.abc import Sequence

import torch
from torch import nn

from fl_sim import Task, from_arrays, tree
from fl_sim.registry import offer
from fl_sim.tree import Tree
from tests.conformance.stateful import Remembers

NAMES = __name__
"""What names of these components begin with."""


@offer("task")
def tiny() -> Task:
    """Forty samples of four natural clients in two classes."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return from_arrays(x, (x.sum(1) > 0).long(), clients=torch.arange(40) % 7 % 4, name="tiny")


@offer("task")
def other() -> Task:
    """The same samples under another name, with the classes exchanged."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return from_arrays(x, (x.sum(1) <= 0).long(), clients=torch.arange(40) % 7 % 4, name="other")


@offer("task")
def several() -> Task:
    """Three labels for each of the same samples, in as many classes, so that classes may lie on both axes."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return from_arrays(x[:, None], x.argsort(1), clients=torch.arange(40) % 7 % 4, class_axis=1, name="several")


@offer("task")
def pictures() -> Task:
    """Forty pictures of 2 x 2 pixels of four natural clients in two classes."""
    x = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return from_arrays(x, (x.flatten(1).sum(1) > 2).long(), clients=torch.arange(40) % 7 % 4, name="pictures")


@offer("model")
def linear(inputs: Sequence[int], outputs: int) -> nn.Module:
    """A linear network; of samples (1, 3) it gives (3, 3): three classes of three labels."""
    if len(inputs) > 1:
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 9), nn.Unflatten(1, (3, 3)))
    return nn.Linear(3, outputs)


@offer("model")
def two_layers(inputs: Sequence[int], outputs: int) -> nn.Module:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, outputs))


@offer("model")
def wide(inputs: Sequence[int], outputs: int) -> nn.Module:
    """Two linear layers, of which the first has a matrix that a product of rank 1 is smaller than."""
    return nn.Sequential(nn.Linear(3, 6), nn.Linear(6, outputs))


@offer("model")
def normalised(inputs: Sequence[int], outputs: int) -> nn.Module:
    """A layer that normalises each sample, and a linear one."""
    return nn.Sequential(nn.LayerNorm(3), nn.Linear(3, outputs))


class Keeps(Remembers):
    """No paper: ``Remembers``, whose server keeps a velocity."""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """One step along the velocity."""
        change = tree.sub(pooled, model)
        velocity = self.server_state.get("velocity")
        velocity = change if velocity is None else tree.add(change, velocity, 0.5)
        self.server_state = {"velocity": velocity}
        return tree.add(model, velocity, self.server_lr)
