"""A run under way, as callbacks see it, and the hooks of a callback."""

from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fl_sim.engines.results import BlockResult
from fl_sim.logs.writer import RoundLog
from fl_sim.tree import Tree


class Callback:
    """Hooks into a run: override those that you need. An exception in a hook fails the run."""

    reads_digest: bool = True
    """Whether ``on_round_end`` reads the digest.

    Where no callback does, the next round begins while the digest is computed.
    """

    def on_run_start(self, run: "Run") -> None:
        """Before round 0 is evaluated."""

    def on_round_start(self, run: "Run") -> None:
        """Before a round's messages are created; ``run.train_config["local.lr"] = ...`` changes what clients get."""

    def on_block(self, run: "Run", result: BlockResult) -> None:
        """After a block of clients has answered, in training or personal evaluation (simulation only)."""

    def on_evaluation(self, run: "Run", row: dict[str, object]) -> None:
        """After the global model was evaluated; ``row`` is the round's line so far.

        Of a run that ends early, the last one may come after ``on_round_end`` of its last round.
        """

    def on_round_end(self, run: "Run", row: dict[str, object]) -> None:
        """Before the round's line is written; may add columns, or call ``run.stop``."""

    def on_run_end(self, run: "Run") -> None:
        """After the last round, or after a failure."""


@dataclass
class Run:
    """A run under way, as callbacks see it."""

    strategy: Strategy
    grid: Grid
    arrays: ArrayRecord
    num_rounds: int
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    round: int = 0
    stopped: str = ""
    """Why it was stopped early; empty if it was not."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    model: Tree = field(default_factory=dict)
    """The global model, decoded from ``arrays``: to be read; an in-place operation on it fails the round."""
    log: RoundLog | None = None
    """The round log, open for writing: ``log.path`` is the run's folder, ``log.event(...)`` records an event."""

    def stop(self, reason: str) -> None:
        """End the run after this round."""
        self.stopped = reason or "stopped"


@dataclass(repr=False)  # Flower's own text, which does not print all numbers of the model
class RunResult(Result):
    """Flower's Result, with the lines of the round log and why the run was stopped early, if it was."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
