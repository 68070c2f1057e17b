"""What a strategy's and an app's own numbers are called in ``rounds.jsonl``, so that none hides a documented column. No paper."""

import re
from collections.abc import Mapping
from typing import Any

from fl_sim.blocks.learner import local_settings
from fl_sim.logs.columns import COLUMNS

STARTS = {"train": "train", "evaluate": "eval", "query": "query"}
"""What a client's own names may start with, by phase."""
CENTRAL = ("accuracy", "loss", "val_accuracy", "val_loss")
"""Documented columns that central evaluation fills."""
SYNONYM = re.compile(
    r"(?:(?:test|eval|evaluate|evaluation|central|centrali[sz]ed|server|global)[_-])*(accuracy|acc|loss)", re.IGNORECASE
)


def of_clients(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Aggregated numbers of clients: ``loss`` of training is ``train_loss``; a name that starts so (``eval_acc``) keeps it."""
    named = {k if k.lower().startswith(STARTS[prefix]) else f"{prefix}_{k}": v for k, v in metrics.items()}
    return {f"client_{k}" if k in COLUMNS["rounds"] and k != "train_loss" else k: v for k, v in named.items()}


def of_central(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of central evaluation under their own names; under ``central_NAME`` where the log has a column of that name.

    ``accuracy`` and ``loss`` are also filled from the only name that says the same (``test_accuracy``, ``eval_acc``,
    ``centralized_loss``); an accuracy in percent is not: the column is a fraction.
    """
    named = {f"central_{k}" if k in COLUMNS["rounds"] and k not in CENTRAL else k: v for k, v in metrics.items()}
    for target in ("accuracy", "loss"):
        same = [
            v for k, v in metrics.items() if (match := SYNONYM.fullmatch(k)) and target.startswith(match[1].lower())
        ]
        if (
            target not in named
            and len(same) == 1
            and isinstance(same[0], (int, float))
            and (target == "loss" or 0 <= same[0] <= 1)
        ):
            named[target] = same[0]
    return named


def learning_rate(config: Mapping[str, Any], server_round: int) -> float | None:
    """The clients' learning rate in this round: ``local.lr`` by its schedule, or what an app calls ``lr``."""
    if "local.lr" in config:
        return local_settings(config, server_round).lr
    rate = config.get("lr")
    return float(rate) if isinstance(rate, (int, float)) else None
