"""A multilayer perceptron with one hidden layer."""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import flat, positive
from fl_sim.registry import offer


@offer("model")
def mlp(
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Annotated[int, Ge(1)] = 64,
    projection: Annotated[int, Ge(0)] = 0,
) -> nn.Module:
    """A linear layer of ``hidden`` units, ReLU, a linear layer: 50 890 parameters on MNIST.

    ``projection`` : units of a projection head of two layers before the last layer; 0: none. Raises ValueError for
    ``hidden`` < 1 and ``projection`` < 0.
    """
    positive("hidden", hidden)
    layers = [nn.Flatten(), nn.Linear(flat("mlp", inputs), hidden), nn.ReLU()]
    return with_head(layers, hidden, outputs, projection)
