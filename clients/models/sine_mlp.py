"""The network of the sinusoid task.

A. Nichol, J. Achiam, J. Schulman, "On First-Order Meta-Learning Algorithms" (Reptile), 2018, section 2,
arXiv:1803.02999: two hidden layers of 64 units and tanh. That of MAML, arXiv:1703.03400, has 40 units and ReLU.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._shapes import flat, positive
from fl_sim.registry import offer


@offer("model")
def sine_mlp(inputs: tuple[int, ...], outputs: int, hidden: Annotated[int, Ge(1)] = 64) -> nn.Module:
    """Two linear layers of ``hidden`` units with tanh, a linear layer: 4353 parameters for 1 input and 1 output.

    Raises ValueError for ``hidden`` < 1.
    """
    positive("hidden", hidden)
    layers = [nn.Linear(flat("sine-mlp", inputs), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(hidden, outputs))
