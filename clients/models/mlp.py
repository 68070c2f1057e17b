"""A multilayer perceptron with one hidden layer."""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._shapes import flat, positive
from fl_sim.registry import offer


@offer("model")
def mlp(inputs: tuple[int, ...], outputs: int, hidden: Annotated[int, Ge(1)] = 64) -> nn.Module:
    """A linear layer of ``hidden`` units, ReLU, a linear layer: 50 890 parameters on MNIST.

    Raises ValueError for ``hidden`` < 1.
    """
    positive("hidden", hidden)
    return nn.Sequential(nn.Flatten(), nn.Linear(flat("mlp", inputs), hidden), nn.ReLU(), nn.Linear(hidden, outputs))
