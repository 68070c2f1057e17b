"""A strategy for tests whose clients keep a state: the sum of their updates, a part of which each new one includes."""

from collections.abc import Iterable, Mapping

from fl_sim import Local, Loss, local, tree
from fl_sim.learning.loss import Batch
from fl_sim.learning.rule import Metrics
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


class Remembers(Strategy):
    """No paper: ``w' = train(w) + beta * s``, ``s' = s + w' - w``."""

    def __init__(self, beta: float = 0.1) -> None:
        self.beta = beta

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        if state:
            new = {k: x + self.beta * state[k] for k, x in new.items()}
        change = tree.sub(new, model)
        return new, {k: state[k] + x if state else x for k, x in change.items()}, metrics
