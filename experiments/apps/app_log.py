"""The round log of a Flower app, which may start several strategies one after another."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fl_sim import RoundLog


class AppLog(RoundLog):
    """A round log that numbers rounds across strategies, and keeps the rows in memory.

    A second strategy starts again at round 0, so ``base`` is added to every round number.
    """

    rows: list[dict[str, Any]]
    """The rows of ``rounds.jsonl`` so far."""
    timeouts = 0
    """How many replies came too late."""
    base = 0
    """Rounds in the log before the strategy that runs now."""

    def _shifted(self, row: Mapping[str, Any]) -> dict[str, object]:
        return {**row, "round": row["round"] + self.base}

    def round(self, row: Mapping[str, object]) -> None:
        """Write a row of ``rounds.jsonl``."""
        super().round(self._shifted(row))
        self.rows = [*getattr(self, "rows", ()), self._shifted(row)]

    def clients(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write rows of ``clients.jsonl``."""
        super().clients([self._shifted(row) for row in rows])

    def event(self, kind: str, **facts: object) -> None:
        """Write a line of ``events.jsonl``."""
        self.timeouts += kind == "timeout"
        super().event(kind, **(self._shifted(facts) if "round" in facts else facts))

    def model(self, tree: Mapping[str, torch.Tensor], server_round: int, digest: str = "") -> None:
        """Save the global model after a round."""
        super().model(tree, server_round + self.base, digest)
