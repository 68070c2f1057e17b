"""Counts the client updates of a run: an asynchronous one has trained clients whose replies no step has taken."""

from fl_sim import Callback, Run
from fl_sim.engines.results import BlockResult


class Updates(Callback):
    """Client updates of a run."""

    def __init__(self) -> None:
        self.trained = 0

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.trained += len(result.clients)
