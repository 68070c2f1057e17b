"""Synchronous SGD on a parameter server, with backup workers: who is last in a step is not waited for.

Chen, Pan, Monga, Bengio, Jozefowicz, "Revisiting Distributed Synchronous SGD", ICLR Workshop 2016, arXiv:1604.00981,
algorithms 3 and 4.

    client:  g_k = gradient of the loss on one batch at w
    server:  w <- w - lr / (P - b) sum of the first P - b gradients at w;   later ones are dropped

A worker whose gradient was dropped begins anew from the present model; the others begin when the server has stepped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from fl_sim import tree
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived
from strategies.base.asynchronous.one_gradient import OneGradient, descended


@dataclass
class SyncSGD(OneGradient):
    """The mean of one gradient of each of P workers; P is ``concurrency``."""

    lr: Annotated[float, Gt(0)] = 0.1
    """Rate of the server's steps."""
    backup: Annotated[int, Ge(0)] = 0
    """b: workers beyond those whose gradients a step takes."""
    persistent: ClassVar[bool] = True

    @property
    def replies_a_step(self) -> int:
        """P - b."""
        return max(self.workers - self.backup, 1)

    def check_asynchronous(self) -> None:
        """Raise ConfigError where all workers would be backups."""
        super().check_asynchronous()
        if self.concurrency and self.backup >= self.concurrency:
            why = f"of {self.concurrency} workers (concurrency) none is left; choose at most {self.concurrency - 1}"
            raise ConfigError(f"strategy.backup = {self.backup}: {why}")

    def accepts(self, staleness: int) -> bool:
        """Whether a gradient is one at the present model."""
        return staleness == 0

    def released(self, waiting: Mapping[int, int], working: Mapping[int, int], stepped: bool) -> Sequence[int]:
        """After a step all who wait; else who has not sent a gradient at the present model."""
        begun = {} if stepped else self.begun
        chosen = [client for client, done in waiting.items() if begun.get(client, done) == done]
        self.begun = {**begun, **{client: waiting[client] for client in chosen}}
        return chosen

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """Down the mean gradient."""
        total = arrived[0].reply
        for one in arrived[1:]:
            total = tree.add(total, one.reply)
        return descended(model, total, self.lr / len(arrived))
