"""run_rounds: drives any Flower Strategy through its four hooks.

It, not the strategy, does logging, failure policy and callbacks; so Flower's own strategies and
wrappers have these too. No paper.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_sim import tree
from fl_sim.engines.results import BlockResult
from fl_sim.errors import RoundFailed
from fl_sim.grids.deployed import DeployedGrid
from fl_sim.grids.exchange import Failures, Tally
from fl_sim.grids.monitored import WatchedGrid, clients_of, phase_of
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.logs.writer import RoundLog
from fl_sim.rounds import round_row
from fl_sim.rounds.callbacks import Callback, Run, RunResult
from fl_sim.rounds.checkpoint import Checkpoint, Checkpoints
from fl_sim.tree import Tree
from fl_sim.wire import flower, records, reply_form
from fl_sim.wire.pool import PoolingStrategy

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class _Driver:
    def __init__(
        self,
        run: Run,
        timeout: float,
        evaluate_fn: EvaluateFn | None,
        log: RoundLog | None,
        failures: Failures,
        callbacks: Sequence[Callback],
        seed: int,
        checkpoints: Checkpoints | None,
        begin: Checkpoint | None,
    ) -> None:
        self.checkpoints, self.begin = checkpoints, begin
        self.run, self.timeout, self.evaluate_fn, self.log = run, timeout, evaluate_fn, log
        self.failures, self.callbacks, self.seed = failures, callbacks, seed
        self.foreign = not isinstance(run.strategy, PoolingStrategy)
        self.initial: Tree = {}
        self.model_round = self.places = self.samples = 0
        self.aside_failed: RoundFailed | None = None
        self.hasher = ThreadPoolExecutor(1)
        self.digest: Future[str] = Future()
        """Of ``run.model``, made beside other work: a hash of large arrays holds no lock."""
        self.line: Future[None] = Future()
        """The last round's line, written once its digest is there."""
        self.line.set_result(None)
        ends = [callback for callback in callbacks if type(callback).on_round_end is not Callback.on_round_end]
        self.waits = any(callback.reads_digest for callback in ends)
        self.result = RunResult(arrays=run.arrays, rows=run.rows)
        if isinstance(run.grid, SimulationGrid | DeployedGrid):
            run.grid.pool = run.strategy.pool if isinstance(run.strategy, PoolingStrategy) else None
            run.grid.on_event = self.event
        if isinstance(run.grid, SimulationGrid):
            run.grid.on_block = self.block

    def each(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.run, *args)

    def block(self, result: BlockResult) -> None:
        self.places, self.samples = self.places + result.places, self.samples + result.samples
        self.each("on_block", result)

    def event(self, kind: str, **facts: Any) -> None:
        if self.log is not None:
            self.log.event(kind, round=self.run.round, **facts)

    def hook(self, name: str, *args: Any) -> Any:
        """A hook of the strategy; what it says to clients by itself is tallied too."""
        run = self.run
        if name.startswith("configure"):
            grid: Grid = run.grid
            if isinstance(grid, SimulationGrid):
                grid = WatchedGrid(grid, self.failures, self.aside, self.aside_done)
            args = (*args, grid)
        with flower.keyed_hook(self.seed, name, run.round), flower.quiet():
            made = getattr(run.strategy, name)(run.round, *args)
            made = list(made) if name.startswith("configure") else made
        if self.aside_failed is not None:
            raise self.aside_failed
        return made

    def aside(self, messages: list[Message]) -> Tally:
        """The tally of an exchange that is not the round's own."""
        return Tally(
            self.run.round, phase_of(messages), messages, clients_of(self.run.grid, messages), sink=self.log_clients
        )

    def aside_done(self, tally: Tally, good: list[Message], error: RoundFailed | None) -> None:
        self.clients(tally)
        self.aside_failed = self.aside_failed or error

    def exchange(self, phase: str, messages: list[Message]) -> tuple[Tally, Iterable[Message]]:
        run = self.run
        unseen, key = getattr(run.grid, "holdout_node_ids", ()), flower.weight_key(run.strategy)
        tally = Tally(run.round, phase, messages, clients_of(run.grid, messages), unseen, key, self.log_clients)
        replies = run.grid.send_and_receive(messages, timeout=self.timeout) if messages else []
        if not self.foreign:
            return tally, tally.watch(
                replies, reply_form.as_model(run.model) if phase == "train" else reply_form.anything, self.failures
            )
        try:
            replies = tally.gather(replies, self.failures)
            like = (
                reply_form.expected(messages, replies, self.initial, flower.averages(run.strategy))
                if phase == "train"
                else reply_form.anything
            )
            return tally, list(tally.watch(replies, like, self.failures))
        except RoundFailed:
            self.clients(tally)
            raise

    def round(self) -> None:
        run, start = self.run, time.perf_counter()
        self.each("on_round_start")
        self.places = self.samples = 0
        tally, replies = self.exchange("train", self.hook("configure_train", run.arrays, run.train_config))
        try:
            arrays, metrics = self.hook("aggregate_train", replies)
        finally:
            self.clients(tally)
        row = self.train_row(tally)
        if metrics is not None:
            self.result.train_metrics_clientapp[run.round] = metrics
            row |= round_row.of_clients("train", metrics)
        if arrays is None and tally.completed:
            raise RoundFailed(f"round {run.round}: the strategy returned no model from {tally.completed} replies")
        if arrays is not None:
            row["update_norm"] = self.accept(arrays)
        row["seconds"] = time.perf_counter() - start
        self.finish(row)

    def train_row(self, tally: Tally) -> dict[str, Any]:
        dropped = getattr(self.run.strategy, "dropped", ())
        self.log_clients(
            [{"round": self.run.round, "client": c, "phase": "train", "status": "dropped"} for c in dropped]
        )
        rate = round_row.learning_rate(self.run.train_config, self.run.round)
        return {
            "round": self.run.round, "lr": rate, "clients": len(tally.messages) + len(dropped),
            "completed": tally.completed, "failed": len(tally.failures), "dropped": len(dropped), "examples": tally.sum("examples"),
            "steps": tally.sum("steps"), "bytes_down": tally.bytes_down, "bytes_up": tally.bytes_up,
            "padded_share": 1 - self.samples / self.places if self.places else None, "update_norm": 0.0,
        }  # fmt: skip

    def accept(self, arrays: ArrayRecord) -> float:
        """Make ``arrays`` the global model; returns the norm of the change. Raises RoundFailed where it is none."""
        new = records.shared(arrays)
        digest = self.hasher.submit(tree.digest, new)
        same = set(new) == set(self.run.model) and all(new[k].shape == self.run.model[k].shape for k in new)
        change = float(tree.norm(tree.sub(new, self.run.model))) if same else 0.0
        finite = same and math.isfinite(change)  # then so is each number
        problem = records.problem(arrays, None if self.foreign else self.run.model, new, finite)
        if problem:
            raise RoundFailed(
                f"round {self.run.round}: the strategy's new model has {problem}; the last good model is kept"
            )
        self.run.arrays = self.result.arrays = arrays
        self.run.model, self.model_round, self.digest = new, self.run.round, digest
        return change

    def finish(self, row: dict[str, Any]) -> None:
        """Evaluate, complete the round's line, write it."""
        run, start = self.run, time.perf_counter()
        evaluated = self.evaluate_clients() if run.round else None
        if evaluated is not None:
            self.result.evaluate_metrics_clientapp[run.round] = evaluated
            personal = {k: v for k, v in evaluated.items() if k.startswith(("personal_", "unseen_"))}
            row |= personal | round_row.of_clients(
                "evaluate", {k: v for k, v in evaluated.items() if k not in personal}
            )
        with flower.keyed_hook(self.seed, "evaluate_fn", run.round):
            central = self.evaluate_fn(run.round, run.arrays) if self.evaluate_fn else None
        if central is not None:
            self.result.evaluate_metrics_serverapp[run.round] = central
            row |= round_row.of_central(central)
        self.line.result()
        row |= {"evaluate_seconds": time.perf_counter() - start, "digest": None}
        if central is not None or evaluated is not None:
            row["digest"] = self.digest.result()
            self.each("on_evaluation", row)
            if self.log is not None:
                self.log.model(run.model, self.model_round)
        if self.waits:
            row["digest"] = self.digest.result()
        self.each("on_round_end", row)
        run.rows.append(row)
        self.line = self.hasher.submit(self.write, row, self.digest)

    def write(self, row: dict[str, Any], digest: Future[str]) -> None:
        """Complete a round's line."""
        row["digest"] = digest.result()
        if self.log is not None:
            self.log.round(row)

    def restore(self, begin: Checkpoint) -> None:
        """Stand where a checkpoint was made: as if its rounds had been run here. The lines that were logged by then are the run's."""
        run = self.run
        run.arrays = self.result.arrays = records.held(begin.model)
        run.model, run.round, self.model_round = records.shared(run.arrays), begin.round, begin.model_round
        self.digest = self.hasher.submit(tree.digest, run.model)
        vars(run.strategy).update(begin.strategy)
        if isinstance(run.grid, SimulationGrid | DeployedGrid):
            run.grid.states.update(begin.states)
        if self.log is not None:
            run.rows += self.log.rounds_so_far()

    def checkpoint(self, last: bool) -> None:
        """Keep all that the run needs to go on from here, if one is due; after the last round always."""
        run = self.run
        if self.checkpoints is None or self.log is None or not (last or self.checkpoints.due(run.round)):
            return
        self.line.result()
        states = run.grid.states if isinstance(run.grid, SimulationGrid | DeployedGrid) else {}
        own: Any = run.strategy.__getstate__() or {}
        own = own if isinstance(own, dict) else own[0]  # of a class with slots a pair
        made = Checkpoint(run.round, run.model, self.model_round, own, states, self.log.positions)
        refused = self.checkpoints.refused
        executor = run.grid.executor if isinstance(run.grid, SimulationGrid) else None
        self.checkpoints.save(made, float(run.rows[-1]["seconds"]) / (executor.runs if executor else 1))
        if self.checkpoints.refused and not refused:
            self.event("no_checkpoint", reason=self.checkpoints.refused)

    def evaluate_clients(self) -> MetricRecord | None:
        phase = getattr(self.run.strategy, "evaluation", "evaluate" if self.foreign else "personal")
        tally, replies = self.exchange(
            phase, self.hook("configure_evaluate", self.run.arrays, self.run.evaluate_config)
        )
        try:
            metrics: MetricRecord | None = self.hook("aggregate_evaluate", replies)
            return metrics
        finally:
            self.clients(tally)

    def clients(self, tally: Tally) -> None:
        for client, reason in tally.failures:
            self.event("client_failed", client=client, phase=tally.phase, reason=reason)
        tally.flush()

    def log_clients(self, rows: Sequence[dict[str, Any]]) -> None:
        if self.log is not None and rows:
            self.log.clients(rows)

    def execute(self) -> RunResult:
        run = self.run
        try:
            run.model = self.initial = records.shared(run.arrays)
            self.digest = self.hasher.submit(tree.digest, run.model)
            if self.begin is not None:
                self.restore(self.begin)
            self.each("on_run_start")
            if not run.rows:
                self.finish({"round": run.round, "update_norm": 0.0, "seconds": 0.0})
            while run.round < run.num_rounds and not run.stopped:
                run.round += 1
                self.round()
                self.checkpoint(last=run.round == run.num_rounds or bool(run.stopped))
            self.line.result()
        except (Exception, SystemExit) as error:
            self.event("run_failed", reason=f"{type(error).__name__}: {error}")
            if isinstance(error, SystemExit):
                raise RoundFailed(
                    f"round {run.round}: the strategy or a callback called sys.exit({error.code!r})"
                ) from error
            raise
        finally:
            self.result.stopped = run.stopped
            self.hasher.shutdown()
            if self.log is not None:
                self.log.model(run.model, self.model_round)
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
) -> RunResult:
    """Run ``num_rounds`` rounds of any Flower strategy on any grid.

    The first eight parameters are those of Flower's ``Strategy.start``. ``log`` receives a line a round (round 0 is the
    initial model) and rows a client; ``failures`` is ``raise`` or ``tolerate:SHARE``; ``seed`` keys the global generators
    that a foreign strategy draws from. ``checkpoints`` writes them as the run goes (with a ``log``); a run that
    begins at one goes on behind its round, as if it had never ended. Raises RoundFailed when a round cannot do what it
    was asked; the last good model is then in ``log``'s folder.
    """
    run = Run(
        strategy, grid, initial_arrays, num_rounds, train_config or ConfigRecord(), evaluate_config or ConfigRecord()
    )
    return _Driver(
        run, timeout, evaluate_fn, log, Failures.parse(failures), callbacks, seed, checkpoints, begin
    ).execute()
