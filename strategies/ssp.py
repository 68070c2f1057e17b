"""Stale synchronous parallel SGD: workers run ahead of the slowest one, by a bounded number of steps.

Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013, section 2.

    client:  g = gradient of the loss on one batch, at the model it was sent when it was released
    server:  w <- w - (lr / P) g,   at once
    a worker is released where its completed steps minus those of the slowest are at most s
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived
from strategies.base.asynchronous.one_gradient import OneGradient, descended


@dataclass
class SSP(OneGradient):
    """SGD on P workers with bounded staleness; s = 0 is ``syncsgd``. P is ``concurrency``."""

    lr: Annotated[float, Gt(0)] = 0.1
    """Rate of P steps together, as that of a step of ``syncsgd``."""
    s: Annotated[int, Ge(0)] = 3
    """Steps by which a worker that starts may be ahead of the slowest."""
    persistent: ClassVar[bool] = True

    def released(self, waiting: Mapping[int, int], working: Mapping[int, int], stepped: bool) -> Sequence[int]:
        """Those at most s steps ahead of the slowest."""
        slowest = min([*waiting.values(), *working.values()])
        return [client for client, done in waiting.items() if done - slowest <= self.s]

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """Down each gradient, with a P-th of the rate."""
        for one in arrived:
            model = descended(model, one.reply, self.lr / self.workers)
        return model
