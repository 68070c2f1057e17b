"""What a server does in one round and not in another."""

from collections.abc import Mapping
from typing import Any


def annealed(anneal: str, server_round: int, rounds: int) -> float:
    """The factor of a server's step in round t = 1..T: 1 for ``constant``, 1 - (t - 1) / T for ``linear``."""
    return 1 - (server_round - 1) / max(rounds, 1) if anneal == "linear" else 1.0


def personal_due(server_round: int, config: Mapping[str, Any]) -> bool:
    """Whether a round has a personal evaluation: the last one, and those that ``personalize.every`` says."""
    every = int(config.get("personalize.every", 0))
    due = server_round == int(config.get("rounds", 0)) or (every and server_round % every == 0)
    return bool(config.get("personalize.steps", 0) and due)
