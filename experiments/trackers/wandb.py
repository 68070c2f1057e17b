"""Weights & Biases: offline, in ``RUN/wandb``; ``wandb sync RUN/wandb/offline-run-*`` sends it. See WANDB_MODE."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("wandb",)
"""What must be installed."""


class WandB:
    """A run of W&B."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        package: Any = importlib.import_module("wandb")  # by name: only a run that asks for it needs it
        quiet = package.Settings(silent=True, console="off")
        mode, project = os.environ.get("WANDB_MODE") or "offline", os.environ.get("WANDB_PROJECT") or "fl-sim"
        self.run: Any = package.init(
            mode=mode,
            project=project,
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            settings=quiet,
            reinit="create_new",
        )

    def numbers(self, server_round: int, values: Mapping[str, float]) -> None:
        """One number a column, at the step of its round."""
        self.run.log(dict(values), step=server_round)

    def close(self) -> None:
        """End the run, and write its file."""
        self.run.finish()


start = WandB
"""Begins a run."""
