"""ResNet-18 with GroupNorm, for small pictures.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385. GroupNorm
replaces BatchNorm as in K. Hsieh et al., ICML 2020, arXiv:1910.00189, with 2 groups as in S. Reddi et al., "Adaptive
Federated Optimization", ICLR 2021, arXiv:2003.00295, section 4 and appendix C, on CIFAR. The first layer is a 3x3
convolution of stride 1, without pooling.
"""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from clients.models._head import with_head
from clients.models._shapes import image
from fl_sim.registry import offer


class _Block(nn.Module):
    """relu(x + f(x)) with f = conv, norm, relu, conv, norm; x goes through a 1x1 convolution if the shape changes."""

    def __init__(self, channels: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.GroupNorm(groups, out), nn.ReLU()),
            *(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.GroupNorm(groups, out)),
        )
        same = channels == out and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.GroupNorm(groups, out))
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.shortcut(x) + self.residual(x))
        return activated


@offer("model")
def resnet18(
    inputs: tuple[int, ...],
    outputs: int,
    groups: Annotated[int, Ge(1)] = 2,
    projection: Annotated[int, Ge(0)] = 0,
) -> nn.Module:
    """Four stages of two blocks each, with 64, 128, 256 and 512 channels: 11 173 962 parameters on CIFAR-10.

    ``projection`` : units of a projection head of two layers before the last layer; 0: none. Raises ValueError for
    samples that are no pictures of at least 8 x 8 pixels, and for ``groups`` that do not divide 64.
    """
    channels, _, _ = image("resnet18", inputs, smallest=8)
    if groups < 1 or 64 % groups:
        raise ValueError(
            f"model.groups = {groups}: must divide 64, the channels of the first stage; choose 1, 2, 4, 8, 16, 32 or 64"
        )
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.GroupNorm(groups, 64), nn.ReLU()]
    channels = 64
    for stage, size in enumerate([64, 128, 256, 512]):
        layers += [_Block(channels, size, 1 if stage == 0 else 2, groups), _Block(size, size, 1, groups)]
        channels = size
    return with_head([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, outputs, projection)
