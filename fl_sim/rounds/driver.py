"""``run_rounds``: drives any Flower Strategy through its four hooks, on any grid.

Logging, failure policy, checkpoints and callbacks are the driver's, not the strategy's, so Flower's own strategies and
wrappers have them too.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_sim.engines.results import BlockResult
from fl_sim.errors import RoundFailed, of_process_end
from fl_sim.grids.base import as_client_grid
from fl_sim.grids.exchange import Failures
from fl_sim.kernels import in_place
from fl_sim.logs.writer import RoundLog
from fl_sim.rounds import round_row
from fl_sim.rounds.callbacks import Callback, Run, RunResult
from fl_sim.rounds.checkpoint import Checkpoint, Checkpoints
from fl_sim.rounds.checkpoint_files import kept_attributes
from fl_sim.rounds.digests import Digests
from fl_sim.rounds.foreign_statistics import statistics_under
from fl_sim.rounds.measured.model_change import change_of
from fl_sim.rounds.measured.round_work import Memory, RoundWork
from fl_sim.rounds.round_checkpoints import RoundCheckpoints
from fl_sim.rounds.round_evaluation import NEVER, EvaluateFn, OnlyAtTheEnd, RoundEvaluation
from fl_sim.rounds.strategy_calls import StrategyCalls
from fl_sim.tree import Tree
from fl_sim.wire import records


class Driver:
    """One run: its rounds, and what is logged of them."""

    def __init__(
        self,
        run: Run,
        timeout: float,
        evaluate_fn: EvaluateFn | None,
        every: tuple[int, int],
        log: RoundLog | None,
        failures: Failures,
        callbacks: Sequence[Callback],
        seed: int,
        checkpoints: Checkpoints | None,
        begin: Checkpoint | None,
    ) -> None:
        self.begin, self.run, self.log, self.callbacks = begin, run, log, callbacks
        self.grid = as_client_grid(run.grid)
        self.calls = StrategyCalls(run, self.grid, failures, seed, timeout, log)
        self.saved = RoundCheckpoints(run, self.grid, log, checkpoints, self.calls.event)
        self.versions: list[int] = []
        self.model_round, self.work, self.memory = 0, RoundWork(), Memory()
        self.digests = Digests(run, every[1])
        ends = [callback for callback in callbacks if type(callback).on_round_end is not Callback.on_round_end]
        self.waits_for_digest = any(callback.reads_digest for callback in ends)
        self.result = RunResult(arrays=run.arrays, rows=run.rows)
        self.evaluation = RoundEvaluation(run, self.calls, self.result, evaluate_fn, every[0])
        self.at_end = OnlyAtTheEnd()
        self.statistics = statistics_under(run.strategy, self.grid.statistics, self.calls.event)
        self.grid.on_event, self.grid.on_block = self.calls.event, self.block

    def each(self, hook: str, *args: object) -> None:
        """Call a hook of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, hook)(self.run, *args)

    def block(self, result: BlockResult) -> None:
        """A block has answered."""
        self.work.add(result)
        self.each("on_block", result)

    # Rounds ---------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Train, take the new model, evaluate, write the line."""
        run, start = self.run, time.perf_counter()
        self.each("on_round_start")
        self.check_model()
        self.work = work = RoundWork()
        self.grid.begin_round()
        exchange, replies = self.calls.exchange("train", self.calls.train_messages(self.statistics))
        if isinstance(replies, list):
            self.statistics.take(replies)
        try:
            unused = replies == [] and exchange.completed  # all weigh 0: strategies of Flower divide by their sum
            arrays, metrics = (None, None) if unused else work.pooled(self.calls.hook, replies)
        finally:
            self.calls.log_exchange(exchange)
        self.statistics.report_unanswered()
        dropped = getattr(run.strategy, "dropped", ())
        self.calls.log_clients([round_row.dropped_client(run.round, client) for client in dropped])
        row = round_row.of_training(exchange, run.train_config, dropped, work) | self.grid.round_columns()
        self.grid.sent.answered(exchange.client_of.values(), exchange.unfinished)
        if metrics is not None:
            self.result.train_metrics_clientapp[run.round] = metrics
            row |= round_row.of_clients("train", metrics, getattr(run.strategy, "own_columns", ()))
        if arrays is None and exchange.passed_on:
            none = f"the strategy returned no model from {exchange.passed_on} replies; the old one is kept"
            self.calls.event("no_new_model", reason=none)
        if arrays is not None:
            arrays = self.grid.sent.stepped(self.statistics.settled(arrays, self.calls.initial))
            row["update_norm"] = self.accept(arrays)
        row["seconds"] = time.perf_counter() - start
        self.finish(row)

    def accept(self, arrays: ArrayRecord) -> float:
        """Make ``arrays`` the global model; returns the norm of the change. Raises RoundFailed where it must not be."""
        new, others = records.split(arrays)
        return self.adopt(new, arrays if others else records.encode(new))

    def adopt(self, new: Tree, arrays: ArrayRecord) -> float:
        """``accept`` of a model as a tree and as the record that ``run.arrays`` will be."""
        digest = self.digests.of_next(arrays, new)
        change, problem = change_of(new, self.run.model, arrays, self.calls.foreign)
        if problem:
            bad = f"the strategy's new model has {problem}; the last good model is kept"
            raise RoundFailed(f"round {self.run.round}: {bad}")
        self.take(new, self.run.round, arrays)
        self.digests.current = digest
        return change

    def take(self, model: Tree, server_round: int, whole: ArrayRecord | None = None) -> None:
        """Keep the global model: as a tree, and as a record: ``whole`` where it has arrays that torch cannot hold."""
        self.run.model, self.model_round = model, server_round
        self.run.arrays = self.result.arrays = whole or records.encode(model)
        self.versions = in_place.versions(model)

    def check_model(self) -> None:
        """Raise RoundFailed where a callback has written into the model, whose digest is that of other numbers."""
        if in_place.versions(self.run.model) != self.versions:
            cure = "write into a copy, fl_sim.tree.clone(run.model)"
            raise RoundFailed(f"round {self.run.round}: a callback has written into run.model in place; {cure}")

    def finish(self, row: dict[str, object]) -> None:
        """Evaluate, complete the round's line, write it."""
        run, start = self.run, time.perf_counter()
        evaluated, at_end = self.evaluation.of_round(row, self.log)
        self.digests.line.result()
        row |= {"evaluate_seconds": time.perf_counter() - start, **self.memory(), "digest": None}
        digest = self.digests.wanted() if self.digests.due() else None
        self.at_end = OnlyAtTheEnd(frozenset(() if evaluated or run.round % self.digests.every == 0 else ("digest",)))
        if evaluated or at_end is not None:
            digest = self.digests.wanted()
            row["digest"], before = digest.result(), set(row)
            self.each("on_evaluation", row)
            if self.log is not None:
                self.log.model(run.model, self.model_round, digest.result())
            if at_end is not None:
                self.at_end = at_end.with_columns(self.at_end.columns | (set() if evaluated else set(row) - before))
        if self.waits_for_digest and digest is not None:
            row["digest"] = digest.result()
        self.each("on_round_end", row)
        self.check_model()
        run.rows.append(row)
        self.digests.write(row, self.digests.wanted() if run.stopped else digest, self.log)

    # Begin and end --------------------------------------------------------------------------------------------------

    def restore(self, begin: Checkpoint) -> None:
        """Continue after a checkpoint's round; the run's rows begin with the lines that were logged until then."""
        run = self.run
        self.take(dict(begin.model), begin.model_round)
        run.round = begin.round
        self.digests.current = None
        kept_attributes.restore(run.strategy, self.grid.sent.restored(begin.strategy))
        self.statistics.restored(list(run.model), self.log)
        self.grid.states.restore(begin.states)
        if self.log is not None:
            run.rows += self.log.rounds_so_far()
        if run.rows:
            self.evaluation.resumed(run.rows[-1])
            self.grid.resumed(run.rows[-1])

    def broken_off(self, error: BaseException) -> None:
        """Record why the run ends, and write its last finished round.

        A run that fails with RoundFailed has its final model evaluated first; after other errors, and an interruption,
        that might fail or take too long. Raises RoundFailed for SystemExit and the like, which would end the process.
        """
        run = self.run
        with suppress(OSError):  # the disk is full: the first error is the one to report
            if not isinstance(error, KeyboardInterrupt):
                self.calls.event("run_failed", reason=f"{type(error).__name__}: {error}")
            self.saved.at_break(self.digests.line)
            if isinstance(error, RoundFailed) and run.rows:
                asks = self.grid.asks_after_failure
                self.evaluation.complete_failed(run.rows[-1], self.has_model_of, self.completed, asks)
        if not isinstance(error, (Exception, KeyboardInterrupt)):
            raise RoundFailed(f"round {run.round}: {of_process_end(error)}") from error

    def completed(self, row: dict[str, object]) -> None:
        """The final model was evaluated after its round's line had been written: complete that line."""
        row["digest"] = self.digests.wanted().result()
        self.each("on_evaluation", row)
        self.check_model()
        if self.log is not None:
            self.log.amend(row)

    def has_model_of(self, row: dict[str, object]) -> bool:
        """Whether the model is that of a row: it is not where a round failed that had a new one already."""
        self.digests.line.result()
        return int(str(row["round"])) >= self.model_round and in_place.versions(self.run.model) == self.versions

    def execute(self) -> RunResult:
        """Run all rounds. Raises the exception that ended the run before its last round."""
        run = self.run
        try:
            first, others = records.split(run.arrays)
            self.digests.begin()
            self.take(first, 0, run.arrays if others else None)
            self.calls.initial = run.model
            if self.begin is not None:
                self.restore(self.begin)
            self.calls.check_home()
            self.each("on_run_start")
            if not run.rows:
                self.finish({"round": run.round, "update_norm": 0.0, "seconds": 0.0, **self.grid.round_columns()})
            while run.round < run.num_rounds and not run.stopped:
                run.round += 1
                self.round()
                last = run.round == run.num_rounds or bool(run.stopped)
                self.saved.after_round(self.model_round, self.versions, self.digests.line, last, self.at_end)
            self.digests.line.result()
            self.evaluation.complete(run.rows[-1], self.completed)
        except BaseException as error:
            self.broken_off(error)
            raise
        finally:
            self.result.stopped = run.stopped
            self.digests.shutdown()
            digest = self.digests.last(self.model_round, in_place.versions(run.model) == self.versions)
            if self.log is not None:
                self.log.model(run.model, self.model_round, digest)
            self.each("on_run_end")
        return self.result


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int = 3,
    timeout: float = 3600,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    evaluate_fn: EvaluateFn | None = None,
    *,
    log: RoundLog | None = None,
    failures: str = "raise",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    begin: Checkpoint | None = None,
    digest_every: int = 1,
    evaluate_every: int = 1,
) -> RunResult:
    """Run ``num_rounds`` rounds of any Flower strategy on any grid.

    The first eight parameters are those of Flower's ``Strategy.start``.

    Parameters
    ----------
    log : RoundLog, optional
        Receives a line a round (round 0 is the initial model) and a row a client.
    failures : str (default: "raise")
        ``raise``, or ``tolerate:SHARE`` of a round's clients.
    callbacks : Sequence[Callback]
        Called in order.
    seed : int (default: 0)
        Keys the global generators that a foreign strategy draws from.
    checkpoints : Checkpoints, optional
        Writes checkpoints as the run proceeds, where there is a ``log``.
    begin : Checkpoint, optional
        The run continues after this checkpoint's round, as if it had never ended.
    digest_every : int (default: 1)
        Rounds between digests of the model. Between them a line has none, unless its round was evaluated or ended the
        run; ``on_round_end`` finds None there.
    evaluate_every : int (default: 1)
        Rounds between calls of ``evaluate_fn``; 0, here as above: the initial and the final model alone. The latter is
        evaluated centrally and by personal evaluation, also where the run was stopped, or failed with RoundFailed.

    Raises
    ------
    RoundFailed
        When a round cannot do what was requested. The last good model is then in the log's folder.
    """
    run = Run(
        strategy, grid, initial_arrays, num_rounds, train_config or ConfigRecord(), evaluate_config or ConfigRecord()
    )
    run.log, policy = log, Failures.parse(failures)
    every = evaluate_every or NEVER, digest_every or NEVER
    return Driver(run, timeout, evaluate_fn, every, log, policy, callbacks, seed, checkpoints, begin).execute()
