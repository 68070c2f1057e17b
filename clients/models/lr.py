"""Multinomial logistic regression (with squared error, linear regression): y = W x + b."""

from torch import nn

from clients.models._shapes import flat
from fl_sim.registry import offer


@offer("model")
def lr(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """One linear layer: 7850 parameters on MNIST."""
    return nn.Sequential(nn.Flatten(), nn.Linear(flat("lr", inputs), outputs))
