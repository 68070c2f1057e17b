"""The progress bar of a run, on stderr."""

from typing import Any

from tqdm import tqdm

from experiments.config.schema import Config
from fl_sim import Callback, Run


class Progress(Callback):
    """A bar that counts rounds and shows the latest accuracy and losses.

    Parameters
    ----------
    config : Config
        The run's config: its number of rounds is the length of the bar.
    title : str
        Text before the bar; empty: the strategy's name and the seed.
    """

    reads_digest = False

    def __init__(self, config: Config, title: str = "") -> None:
        self.bar: tqdm[Any] = tqdm(
            total=config.rounds, desc=title or f"{config.strategy.name} seed {config.seed}", unit="round"
        )
        self.shown: dict[str, str] = {}

    def on_run_start(self, run: Run) -> None:
        """Begin where the run does: a resumed run, or a fork, has done rounds already."""
        self.bar.n = self.bar.initial = run.round
        self.bar.refresh()

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Advance to this round; the evaluation of the model with which a run begins updates the numbers only."""
        names = {"accuracy": "accuracy", "loss": "loss", "train_loss": "train"}
        self.shown |= {short: f"{row[name]:.3f}" for name, short in names.items() if row.get(name) is not None}
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(row["round"] - self.bar.n)

    def on_run_end(self, run: Run) -> None:
        """Close the bar; it stays on the screen as it is."""
        self.bar.close()
