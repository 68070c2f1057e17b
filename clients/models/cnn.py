"""The CNN of the CIFAR-10 speed benchmark.

F. Granqvist et al., "pfl-research: simulation framework for accelerating research in Private Federated Learning",
NeurIPS 2024 (datasets and benchmarks), arXiv:2404.06430; after Reddi 2021, arXiv:2003.00295, table 4.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import image
from fl_sim.registry import offer


@offer("model")
def cnn(inputs: tuple[int, ...], outputs: int, projection: Annotated[int, Ge(0)] = 0) -> nn.Module:
    """Two 3x3 convolutions (32 and 64 channels), 2x2 pooling, a linear layer of 128 units, dropout 1/4 and 1/2.

    1 626 442 parameters on CIFAR-10. Initial weights are Xavier-uniform, biases zero. The second ReLU comes after
    pooling, with which it commutes: the same function with a quarter of the work. ``projection`` : units of a
    projection head of two layers before the last layer; 0: none. Raises ValueError for pictures smaller than 6 x 6
    pixels.
    """
    channels, height, width = image("cnn", inputs, smallest=6)
    layers = [
        *(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.ReLU(),
            nn.Dropout(0.25),
        ),
        *(nn.Linear(64 * ((height - 4) // 2) * ((width - 4) // 2), 128), nn.ReLU(), nn.Dropout(0.5)),
    ]
    model = with_head(layers, 128, outputs, projection)
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
    return model
