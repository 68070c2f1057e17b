"""A strategy whose client half fails as it is told, for tests."""

from collections.abc import Iterable, Mapping
from typing import Any

from fl_sim import Local, Loss
from fl_sim.loss import Batch
from fl_sim.tree import Tree
from strategies.base import Strategy


class Broken(Strategy):
    """No paper. ``how``: raises, none, nan, shape or keys; anything else works."""

    def __init__(self, how: str = "raises") -> None:
        self.how = how

    def local_update(self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local) -> Any:
        new, state, metrics = super().local_update(model, state, batches, loss, local_)
        first = next(iter(new))
        if self.how == "raises":
            raise ZeroDivisionError("the device gives up")
        if self.how == "none":
            return None
        changed = {"nan": new[first] * float("nan"), "shape": new[first][None]}.get(self.how, new[first])
        return {**new, first if self.how != "keys" else "nosuch": changed}, state, metrics
