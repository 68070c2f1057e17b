"""The CNN of the project's founding text on pooling, with a choice of its own pooling layers. No paper."""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from clients.models._head import with_head
from clients.models._shapes import image
from fl_sim.registry import offer


@offer("model")
def cnn_pool(
    inputs: tuple[int, ...],
    outputs: int,
    pool: Literal["max", "avg", "l2"] = "max",
    projection: Annotated[int, Ge(0)] = 0,
) -> nn.Module:
    """Two 3x3 convolutions (32, 64 channels, padding 1), ReLU and 2x2 pooling after each, a linear layer of 128 units.

    545 098 parameters on CIFAR-10. ``pool`` : the pooling layers: largest, mean, or root of the sum of squares of a
    window. ``projection`` : units of a projection head of two layers before the last layer; 0: none. Raises ValueError
    for pictures smaller than 4 x 4 pixels.
    """
    channels, height, width = image("cnn-pool", inputs, smallest=4)
    kinds = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2), "l2": nn.LPPool2d(2, 2)}
    if pool not in kinds:
        raise ValueError(f"model.pool = {pool!r}: must be one of {', '.join(kinds)}")
    layers = [
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), kinds[pool]),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), kinds[pool]),
        *(nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 128), nn.ReLU()),
    ]
    return with_head(layers, 128, outputs, projection)
