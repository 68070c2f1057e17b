"""The round log of a Flower app, whose rounds are numbered through, however often it starts a strategy."""

from collections.abc import Mapping
from typing import Any

import torch

from fl_sim import RoundLog


class AppLog(RoundLog):
    """A round log whose rounds are counted through, however often the app starts a strategy; keeps the lines written."""

    rows: list[dict[str, Any]]
    base = 0

    def _shifted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "round": row["round"] + self.base}

    def round(self, row: Mapping[str, Any]) -> None:
        super().round(self._shifted(row))
        self.rows = [*getattr(self, "rows", ()), self._shifted(row)]

    def clients(self, rows: Any) -> None:
        super().clients([self._shifted(row) for row in rows])

    def event(self, kind: str, **facts: Any) -> None:
        super().event(kind, **(self._shifted(facts) if "round" in facts else facts))

    def model(self, tree: Mapping[str, torch.Tensor], server_round: int) -> None:
        super().model(tree, server_round + self.base)
