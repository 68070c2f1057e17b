"""The end of a network: an optional projection head, and the last linear layer.

Q. Li, B. He, D. Song, "Model-Contrastive Federated Learning" (MOON), CVPR 2021, section 3.2, arXiv:2103.16257: a
multilayer perceptron of two layers maps an encoder's features to the space in which models are compared; the last
linear layer takes its outputs. In the paper it belongs to the network of every algorithm that MOON is compared with.
"""

from collections.abc import Sequence

from torch import nn


def with_head(layers: Sequence[nn.Module], features: int, outputs: int, projection: int) -> nn.Sequential:
    """``layers``, then a projection head of ``projection`` outputs unless it is 0, then the last linear layer.

    The head is the layer ``projection``: a linear layer of ``features`` units, ReLU, a linear layer of ``projection``
    units, whose outputs are MOON's features. Without it the names and the initial weights of layers are the same as
    before it existed.

    Parameters
    ----------
    features : int
        Numbers that ``layers`` give for a sample.

    Raises
    ------
    ValueError
        For ``projection`` < 0.
    """
    if projection < 0:
        raise ValueError(f"model.projection = {projection}: must be at least 1, for instance 256, or 0 for no head")
    network = nn.Sequential(*layers)
    if projection:
        head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projection))
        network.add_module("projection", head)
    return network.append(nn.Linear(projection or features, outputs))
