"""The "2NN": a multilayer perceptron with two hidden layers of 200 units.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, section 3.
arXiv:1602.05629.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import flat
from fl_sim.registry import offer


@offer("model", name="2nn")
def two_nn(inputs: tuple[int, ...], outputs: int, projection: Annotated[int, Ge(0)] = 0) -> nn.Module:
    """Two linear layers of 200 units with ReLU, a linear layer: 199 210 parameters on MNIST, as in the paper.

    ``projection`` : units of a projection head of two layers before the last layer; 0: none.
    """
    layers = [nn.Flatten(), nn.Linear(flat("2nn", inputs), 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()]
    return with_head(layers, 200, outputs, projection)
