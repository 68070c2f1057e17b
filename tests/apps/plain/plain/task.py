"""Model, data, training and test of the app."""

import random

import numpy as np
import torch
from torch import nn

LEARNT = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, 1.0, 1.0, -1.0], [-1.0, 0.0, -1.0, 2.0]])


class Net(nn.Module):
    """Linear, with BatchNorm, whose counter is an integer, and dropout, which draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.norm(x)))


def load_data(partition: int) -> tuple[torch.Tensor, torch.Tensor]:
    """40 samples of a client; partition -1 is the server's test set."""
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(100 + partition))
    return x, (x @ LEARNT.T).argmax(1)


def train(net: Net, data: tuple[torch.Tensor, torch.Tensor], lr: float) -> float:
    """One epoch in an order that all three global generators have a say in; returns the mean loss."""
    x, y = data
    order = list(range(len(x)))
    random.shuffle(order)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    losses = []
    for start in range(0, len(order), 8):
        rows = torch.tensor(order[start : start + 8])
        noise = torch.from_numpy(np.random.normal(0, 0.01, (len(rows), 4))).float()  # noqa: NPY002
        loss = nn.functional.cross_entropy(net(x[rows] + noise), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def test(net: Net, data: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """Loss and accuracy."""
    x, y = data
    net.eval()
    with torch.no_grad():
        out = net(x)
    return nn.functional.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()
