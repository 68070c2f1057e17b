"""The progress of a run, on stderr: a live line on a terminal; elsewhere plain lines, without carriage returns."""

import sys
import time
from typing import Any

from tqdm import tqdm

from experiments.config.schema import Config
from fl_sim import Callback, Run

EVERY_S = 10.0
"""Seconds between two lines where stderr is no terminal; the last of all rounds always has one, an early end none."""


class Progress(Callback):
    """Counts rounds and shows accuracy, losses, clients a second, the time left, and failed clients.

    Parameters
    ----------
    config : Config
        The run's config: its number of rounds is where the count ends.
    title : str
        Text before it; empty: the strategy's name and the seed.
    """

    reads_digest = False

    def __init__(self, config: Config, title: str = "") -> None:
        self.title = title or f"{config.strategy.name} seed {config.seed}"
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=config.rounds, desc=self.title, unit="round", dynamic_ncols=True)
        self.total, self.first = config.rounds, 0
        self.start = self.told = time.monotonic()
        self.shown: dict[str, str] = {}
        self.clients = self.failed = 0

    def on_run_start(self, run: Run) -> None:
        """Begin where the run does: a resumed run, or a fork, has done rounds already."""
        self.first, self.start = run.round, time.monotonic()
        if self.bar is not None:
            self.bar.n = self.bar.initial = run.round
            self.bar.refresh()

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Advance to this round; the evaluation of the model with which a run begins updates the numbers only."""
        names = {"accuracy": "accuracy", "loss": "loss", "train_loss": "train"}
        self.shown |= {short: f"{row[name]:.3f}" for name, short in names.items() if row.get(name) is not None}
        self.clients += row.get("completed") or 0
        self.failed += row.get("failed") or 0
        now, done = time.monotonic(), row["round"] - self.first
        if self.clients:
            self.shown["clients/s"] = f"{self.clients / max(now - self.start, 1e-9):.1f}"
        if self.failed:
            self.shown["failed"] = str(self.failed)
        if self.bar is not None:
            self.bar.set_postfix(self.shown, refresh=False)
            self.bar.update(row["round"] - self.bar.n)
        elif done > 0 and (now - self.told >= EVERY_S or row["round"] >= self.total):
            self.told = now
            left = (now - self.start) / done * max(self.total - row["round"], 0)
            numbers = ", ".join(f"{name} {text}" for name, text in self.shown.items())
            text = f"{self.title}: round {row['round']} of {self.total}, {numbers}, {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)

    def on_run_end(self, run: Run) -> None:
        """Close the bar; it stays on the screen as it is."""
        if self.bar is not None:
            self.bar.close()
