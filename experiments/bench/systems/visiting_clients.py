"""FedAvg that visits some of its clients again and again, with and without a state of the model's size on each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fl_sim import Batch, Local, Loss, rng
from fl_sim.learning.rule import Draw, Sizes, Streams
from fl_sim.local import train
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg


class _Some:
    """What ``configure_train`` needs of a grid, with some of its nodes."""

    def __init__(self, nodes: list[int]) -> None:
        self.nodes = nodes

    def get_node_ids(self) -> list[int]:
        """The nodes."""
        return self.nodes


@dataclass
class VisitingClients(FedAvg):
    """The first ``visited`` clients take part: in turn until each has, then keyed samples of them.

    At its first visit a client trains nothing, which saves time: it only leaves its state.
    """

    visited: int = 10_000
    per_round: int = 100
    keep: bool = False
    """Whether a client's state is the model that it sent last, which it gets again, and does not use."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages to the round's clients, which all get the same model."""
        first = (server_round - 1) * self.per_round
        turn = list(range(first, min(first + self.per_round, self.visited)))
        chosen = turn or sorted(rng.sample(rng.key(0, "visits", server_round), self.visited, self.per_round))
        nodes: Any = grid.get_node_ids()
        some: Any = _Some([nodes[c] for c in chosen])
        return super().configure_train(server_round, arrays, config, some)

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """No batches at first visits."""
        first = draw.server_round * self.per_round <= self.visited
        return {"train": []} if first else super().streams(sizes, local, draw)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Tree]:
        """FedAvg's training, and the state."""
        steps = list(batches["train"])
        new, metrics = train(model, steps, local_, loss.gradient) if steps else (model, {"loss": torch.zeros(())})
        return new, new if self.keep else {}, metrics
