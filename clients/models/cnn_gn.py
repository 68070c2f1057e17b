"""A small CNN with GroupNorm, fast on a CPU. For the reason against BatchNorm see clients/models/__init__.py.

Y. Wu, K. He, "Group Normalization", ECCV 2018, arXiv:1803.08494.
"""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import image, positive
from fl_sim.registry import offer


@offer("model")
def cnn_gn(
    inputs: tuple[int, ...],
    outputs: int,
    width: Annotated[int, Ge(1)] = 16,
    depth: Annotated[int, Ge(1)] = 1,
    projection: Annotated[int, Ge(0)] = 0,
) -> nn.Module:
    """Three stages of ``width``, 2 ``width`` and 4 ``width`` channels, then one linear layer.

    A stage is ``depth`` times (3x3 convolution, GroupNorm of 2 groups, ReLU), then 2x2 max pooling, in the last stage
    the mean over the picture. 24 458 parameters on CIFAR-10 at depth 1, 73 178 at depth 2. ``projection`` : units of a
    projection head of two layers before the last layer; 0: none. Raises ValueError for pictures smaller than 4 x 4
    pixels, an odd ``width`` or ``depth`` < 1.
    """
    channels, _, _ = image("cnn-gn", inputs, smallest=4)
    positive("depth", depth)
    if width < 2 or width % 2:
        raise ValueError(
            f"model.width = {width}: channels are normalised in 2 groups; choose an even number, for instance 16"
        )
    layers: list[nn.Module] = []
    for stage, size in enumerate([width, 2 * width, 4 * width]):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, size, 3, padding=1), nn.GroupNorm(2, size), nn.ReLU()]
            channels = size
        layers.append(nn.MaxPool2d(2) if stage < 2 else nn.AdaptiveAvgPool2d(1))
    return with_head([*layers, nn.Flatten()], channels, outputs, projection)
