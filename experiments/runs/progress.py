"""The live progress bar, on stderr. No paper."""

from typing import Any

from tqdm import tqdm

from experiments.config.schema import Config
from fl_sim import Callback, Run


class Progress(Callback):
    """One bar a run: rounds, and the last accuracy and losses seen."""

    reads_digest = False

    def __init__(self, config: Config, title: str = "") -> None:
        self.bar: tqdm[Any] = tqdm(
            total=config.rounds, desc=title or f"{config.strategy.name} seed {config.seed}", unit="round"
        )
        self.seen: dict[str, str] = {}

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Move on by one, but for round 0."""
        names = {"accuracy": "accuracy", "loss": "loss", "train_loss": "train"}
        self.seen |= {short: f"{row[name]:.3f}" for name, short in names.items() if row.get(name) is not None}
        self.bar.set_postfix(self.seen, refresh=False)
        self.bar.update(1 if row["round"] else 0)

    def on_run_end(self, run: Run) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
