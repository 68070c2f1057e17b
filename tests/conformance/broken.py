"""A strategy for tests whose clients fail in a way that its parameter names."""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fl_sim import Local, Loss
from fl_sim.learning.loss import Batch
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


class Broken(Strategy):
    """No paper. ``how``: raises, none, nan, shape, keys, sleeps:SECONDS or dies; with any other value clients work.

    The environment variable ``BROKEN`` of a device takes precedence over ``how``.
    """

    def __init__(self, how: str = "raises") -> None:
        self.how = how

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> Any:
        new, state, metrics = super().local_update(model, state, batches, loss, local_)
        first, how = next(iter(new)), os.environ.get("BROKEN", self.how)
        if how == "raises":
            raise ZeroDivisionError("the device gives up")
        if how == "none":
            return None
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how.startswith("sleeps:"):
            if folder := os.environ.get("FL_SIM_STATE"):
                Path(folder).mkdir(exist_ok=True)
                Path(folder, "sleeping").touch()
            time.sleep(float(how.removeprefix("sleeps:")))
        changed = {"nan": new[first] * float("nan"), "shape": new[first][None]}.get(how, new[first])
        return {**new, first if how != "keys" else "nosuch": changed}, state, metrics
