"""TensorBoard: event files in ``RUN/tensorboard``; ``tensorboard --logdir runs`` shows all runs below ``runs``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("tensorboard",)
"""What must be installed."""


class TensorBoard:
    """A run's event file."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported here: only a run that asks for it needs it

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("config", "\n".join(f"    {key} = {value!r}" for key, value in settings.items()))

    def numbers(self, server_round: int, values: Mapping[str, float]) -> None:
        """One scalar a column, at the step of its round."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, server_round)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


start = TensorBoard
"""Begins a run."""
