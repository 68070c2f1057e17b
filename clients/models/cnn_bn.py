"""A small CNN with BatchNorm, for FedBN, whose clients keep normalisation layers and their statistics at home.

S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167. After the network for digits of X. Li et al.,
"FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021, arXiv:2102.07623, table 7, but
smaller: it has three 5x5 convolutions and three linear layers. Against BatchNorm elsewhere: clients/models/__init__.py.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import image, positive
from fl_sim.registry import offer


@offer("model")
def cnn_bn(
    inputs: tuple[int, ...],
    outputs: int,
    width: Annotated[int, Ge(1)] = 16,
    projection: Annotated[int, Ge(0)] = 0,
) -> nn.Module:
    """Two stages of ``width`` and 2 ``width`` channels, then one linear layer.

    A stage is a 3x3 convolution, BatchNorm, ReLU, 2x2 max pooling. 20 586 parameters on MNIST besides the statistics;
    it runs on the loop. ``projection`` : units of a projection head of two layers before the last layer; 0: none.
    Raises ValueError for pictures smaller than 4 x 4 pixels and ``width`` < 1.
    """
    channels, rows, columns = image("cnn-bn", inputs, smallest=4)
    positive("width", width)
    layers: list[nn.Module] = []
    for size in (width, 2 * width):
        layers += [nn.Conv2d(channels, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU(), nn.MaxPool2d(2)]
        channels = size
    return with_head([*layers, nn.Flatten()], channels * (rows // 4) * (columns // 4), outputs, projection)
