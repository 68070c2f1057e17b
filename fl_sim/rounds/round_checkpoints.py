"""The checkpoints of a run under way: after rounds that are due one, and when a run breaks off.

In the middle of a round a run has changed more than its model: clients have new states, the strategy has configured a
round, the log has rows of clients. So whatever the next round will change is kept when a round ends.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from fl_sim.grids.base import ClientGrid, OnEvent
from fl_sim.kernels import in_place
from fl_sim.logs.writer import RoundLog, as_bytes, line_of
from fl_sim.rounds.callbacks import Run
from fl_sim.rounds.checkpoint import SHARE, Checkpoint, Checkpoints, segments_named
from fl_sim.rounds.checkpoint_files.kept_attributes import Built, kept_of
from fl_sim.rounds.round_evaluation import OnlyAtTheEnd

CREDIT_S = 0.5
"""Seconds that a run's copies of what its strategy holds may take, beside SHARE of its rounds: a few slow ones, on a
busy machine, leave no round out."""


class RoundCheckpoints:
    """Writes a run's checkpoints, where it has a log and ``checkpoints``; large states are then in the log's folder.

    Parameters
    ----------
    run : Run
        The run under way.
    grid : ClientGrid
        Holds the clients' states.
    log : RoundLog or None
        The run's log, whose positions a checkpoint keeps.
    checkpoints : Checkpoints or None
        Decides when checkpoints are due, and writes them.
    on_event : Callable
        Records an event in the log.
    more : Callable, optional
        What else a checkpoint keeps, by name, beside the strategy's attributes. Where it is given, nothing is kept of
        rounds that are not due one, so that a run that breaks off has the last one that was due.
    """

    def __init__(
        self,
        run: Run,
        grid: ClientGrid,
        log: RoundLog | None,
        checkpoints: Checkpoints | None,
        on_event: OnEvent,
        more: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.run, self.grid, self.log, self.checkpoints, self.on_event = run, grid, log, checkpoints, on_event
        self.more = more
        self.built = Built(run.strategy)
        if log is not None and checkpoints is not None:
            grid.states.keep_in(log.path)
        self._kept: Checkpoint | None = None
        """The last finished round, without the states of clients; None where its checkpoint is written."""
        self._versions: list[int] = []
        """How often each tensor of the kept model had been written into."""
        self._spare = CREDIT_S
        """Seconds that copies of what the strategy holds may take before a round is left out."""

    def after_round(
        self, model_round: int, versions: list[int], line: "Future[None]", last: bool, at_end: OnlyAtTheEnd
    ) -> None:
        """Keep the round that has just ended, and write its checkpoint if it is due one; after the last round always.

        Parameters
        ----------
        model_round : int
            The round that produced the model.
        versions : list of int
            How often each tensor of the model was written into until now.
        line : Future
            Done when the round's line is in the log.
        last : bool
            Whether this was the last round.
        at_end : OnlyAtTheEnd
            What the log has only therefore.
        """
        run, checkpoints = self.run, self.checkpoints
        if self.log is None or checkpoints is None or checkpoints.refused:
            return
        self._spare += SHARE * self._seconds()
        due = last or checkpoints.due(run.round)
        if due:
            line.result()
        elif self._spare < 0 or self.more is not None:
            return
        own = {**kept_of(run.strategy), **self.grid.sent.state()}
        positions, text = {**self.log.positions, **at_end.positions}, ""
        if due:
            start, text = self.log.last_line
            if at_end.columns:
                text = line_of({k: v for k, v in run.rows[-1].items() if k not in at_end.columns})
            positions["rounds.jsonl"] = start + len(as_bytes(text))
        states = self.grid.states.snapshot(compact=checkpoints.keep > 0) if due else {}
        if self.more is not None:
            own = {**own, **self.more()}
        state = Checkpoint(run.round, run.model, model_round, own, states, positions, line=text)
        if self.more is None:
            self._keep(state, versions)
        if due:
            self._save(state)

    def at_break(self, line: "Future[None]") -> None:
        """Write the checkpoint of the last finished round of a run that breaks off, unless it has been written.

        A reason why that cannot be done is an event: the run has ended for another one, which its caller raises.
        """
        if self.log is None or self.checkpoints is None or self._kept is None:
            return
        try:
            line.result()
            found = self.log.line_of_round(self._kept.round)
            if found is None or in_place.versions(self._kept.model) != self._versions:
                raise ValueError(f"the log or the model of round {self._kept.round} was changed afterwards")
            old, (start, text) = self._kept, found
            text = old.line or text
            positions = {**old.positions, "rounds.jsonl": start + len(as_bytes(text))}
            states = self.grid.states.marked
            self._save(Checkpoint(old.round, old.model, old.model_round, old.strategy, states, positions, line=text))
        except Exception as error:
            self.on_event("no_checkpoint", reason=f"{type(error).__name__}: {error}")

    def _keep(self, state: Checkpoint, versions: list[int]) -> None:
        """Keep a round: what the next one replaces by reference, what it may write into as a copy."""
        start = time.perf_counter()
        self._kept, self._versions = None, versions
        self.grid.states.mark()
        try:
            strategy = copy.deepcopy(dict(state.strategy))
        except Exception:  # it can hardly be pickled either, which the next checkpoint reports
            self._spare = -math.inf
            return
        self._kept = replace(state, strategy=strategy, states={})
        self._spare -= time.perf_counter() - start

    def _save(self, state: Checkpoint) -> None:
        checkpoints = self.checkpoints
        assert checkpoints is not None
        checkpoints.save(replace(state, built=self.built), self._seconds() / self.grid.runs_in_process)
        self._kept = None
        if checkpoints.keep > 0:  # else all stay
            self.grid.states.forget_all_but(segments_named(checkpoints.folder))
        if checkpoints.refused:
            self.on_event("no_checkpoint", reason=checkpoints.refused)

    def _seconds(self) -> float:
        return float(self.run.rows[-1]["seconds"])
