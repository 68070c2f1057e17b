"""The settings of local training as a frozen dataclass: the only list of their names for code, TOML files and flags.

Constraints are annotations of ``annotated_types``, checked when a config is read; a field's docstring is its help text.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Lt


@dataclass(frozen=True)
class Local:
    """Training inside one client (``local.*``)."""

    epochs: Annotated[int, Ge(1), Lt(2**63)] = 1
    """Passes over the client's training samples in a round. Ignored where steps > 0."""
    epochs_of: str = ""
    """Unequal epochs, as 1,1,5: client c makes as many passes as number c says, again from the first after the last.
    Empty: local.epochs for all."""
    steps: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Optimiser steps in a round; 0 means that epochs decides."""
    batch_size: Annotated[int, Ge(0), Lt(2**63)] = 32
    """Samples a step; 0 means all of the client's samples."""
    last_batch: Literal["keep", "drop", "join"] = "keep"
    """A pass's last batch, where it is smaller: keep it; drop it, unless it is the only one; or, where it is a single
    sample, join it to the batch before. BatchNorm cannot train on a batch of one sample."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Update rule, as in torch.optim."""
    lr: Annotated[float, Ge(0)] = 0.1
    """Learning rate in round 1."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Momentum of sgd."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """L2 penalty (sgd, adam) or decoupled decay (adamw)."""
    clip_norm: Annotated[float, Ge(0)] = 0.0
    """Largest Euclidean norm of a step's gradient; 0 means no clipping."""
    lr_schedule: Literal["constant", "cosine", "step"] = "constant"
    """constant; cosine, down to 1 % of lr in the last round; or step: x 0.1 from 1/2, x 0.01 from 3/4 of the rounds."""

    def of(self, client: int) -> "Local":
        """The settings of one client: with its own ``epochs`` where ``epochs_of`` gives them."""
        if not self.epochs_of:
            return self
        numbers = self.epochs_of.split(",")
        return replace(self, epochs=int(numbers[client % len(numbers)]), epochs_of="")

    def lr_at(self, server_round: int, rounds: int) -> float:
        """The learning rate in round ``server_round`` (1-based) of ``rounds``."""
        done = min((server_round - 1) / max(rounds - 1, 1), 1.0)
        if self.lr_schedule == "cosine":
            return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        if self.lr_schedule == "step":
            return self.lr * (0.01 if done >= 0.75 else 0.1 if done >= 0.5 else 1.0)
        return self.lr
