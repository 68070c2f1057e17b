"""``--keep_best``: the model that is best by the central validation samples stays in the run's folder."""

from typing import Any

from fl_sim import Callback, Run
from fl_sim.logs.kept import best_models
from fl_sim.logs.writer import RoundLog
from fl_sim.rounds import checkpoint


class KeepBest(Callback):
    """Writes the global model whenever its evaluation on the validation samples is the best so far.

    No test sample is part of the choice. Where no round has an accuracy (a regression), the loss decides.
    """

    reads_digest = False

    def __init__(self, log: RoundLog) -> None:
        self.log = log

    def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
        """Write the model, where its row is the best so far."""
        before = [other for other in run.rows if other["round"] != row["round"]]
        if best_models.best_row([*before, row]) is row:
            kept = [checkpoint.round_of(path) for path in checkpoint.listed(self.log.path)]
            digest, number, state_dict = str(row["digest"]), int(row["round"]), self.log.state_dict
            best_models.save(self.log.path, run.model, number, digest, state_dict, min(kept, default=0))
