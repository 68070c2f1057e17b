"""The network of few-shot learning: four convolutions of 64 channels.

O. Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section 4.1, arXiv:1606.04080; with strides
in place of pooling as in C. Finn et al. (MAML), ICML 2017, section 5.2, arXiv:1703.03400, and A. Nichol et al.
(Reptile), 2018, arXiv:1803.02999, whose network on Omniglot has 113 221 parameters for 5 classes.

Normalisation by the batch (``norm = batch``, the reference) has no running statistics: the samples of a batch are
normalised together in evaluation too, so that the outputs for queries depend on which are evaluated together
(transductive). ``--personalize_queries alone`` evaluates each query with the support alone, and so does ``python -m
experiments.adapt``. It runs on the loop; with ``norm = group`` the network runs on every engine, and each sample is
alone.
"""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from clients.models._shapes import image, positive
from fl_sim.registry import offer

GROUPS = 8
"""Groups of channels of ``norm = group``."""


@offer("model")
def conv4(
    inputs: tuple[int, ...],
    outputs: int,
    width: Annotated[int, Ge(1)] = 64,
    norm: Literal["batch", "group", "none"] = "batch",
    pool: bool = False,
) -> nn.Module:
    """Four times (3x3 convolution, normalisation, ReLU), each halving the picture, then one linear layer.

    113 221 parameters on Omniglot at 5 classes. Convolutions have stride 2; with ``pool`` they have stride 1, and 2x2
    max pooling follows. Raises ValueError for pictures smaller than 16 x 16 pixels, and for a ``width`` that is no
    multiple of 8 with ``norm = group``.
    """
    channels, rows, columns = image("conv4", inputs, smallest=16)
    positive("width", width)
    if norm == "group" and width % GROUPS:
        raise ValueError(f"model.width = {width}: channels are normalised in {GROUPS} groups; choose a multiple of it")
    layers: list[nn.Module] = []
    for _ in range(4):
        layers.append(nn.Conv2d(channels, width, 3, stride=1 if pool else 2, padding=1))
        layers += _normalised(norm, width)
        layers += [nn.ReLU(), nn.MaxPool2d(2)] if pool else [nn.ReLU()]
        channels = width
        rows, columns = (side // 2 if pool else (side + 1) // 2 for side in (rows, columns))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * rows * columns, outputs))


def _normalised(norm: str, width: int) -> list[nn.Module]:
    """The layer of normalisation, if any."""
    if norm == "none":
        return []
    return [nn.GroupNorm(GROUPS, width) if norm == "group" else nn.BatchNorm2d(width, track_running_stats=False)]
