"""LeNet-5 with ReLU and max pooling, as NIID-Bench uses it on CIFAR-10.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of
the IEEE 86(11), 1998; sizes from Q. Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section V,
arXiv:2102.02079.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import image
from fl_sim.registry import offer


@offer("model")
def lenet(inputs: tuple[int, ...], outputs: int, projection: Annotated[int, Ge(0)] = 0) -> nn.Module:
    """Two 5x5 convolutions (6 and 16 channels), each with 2x2 pooling and ReLU, then linear layers of 120 and 84 units.

    62 006 parameters on CIFAR-10. ReLU comes after pooling, with which it commutes: the same function with a quarter of
    the work. ``projection`` : units of a projection head of two layers before the last layer; 0: none. Raises
    ValueError for pictures smaller than 16 x 16 pixels, of which pooling would leave nothing.
    """
    channels, height, width = image("lenet", inputs, smallest=16)
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    layers = [
        *(nn.Conv2d(channels, 6, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * rows * columns, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
    ]
    return with_head(layers, 84, outputs, projection)
