"""The driver of an asynchronous strategy: a round of the log is one server step."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from fl_sim.engines.coding import reply_bytes
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.grids.messages import MessageReader
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.grids.virtual_time.event_clock import EventClock
from fl_sim.grids.virtual_time.timed_round import work_of_clients
from fl_sim.grids.virtual_time.waves import Waves, start_model
from fl_sim.population.devices import SECOND, Devices, Drawn, whole_nanoseconds
from fl_sim.rounds import expected_replies, round_row
from fl_sim.rounds.asynchronous.schedule import Schedule
from fl_sim.rounds.asynchronous.step_exchange import Launched, OfAllAnswers, StepExchange, facts_of
from fl_sim.rounds.callbacks import Run, RunResult
from fl_sim.rounds.checkpoint import Checkpoint
from fl_sim.rounds.driver import Driver
from fl_sim.rounds.measured.round_work import Memory, RoundWork
from fl_sim.rounds.round_checkpoints import RoundCheckpoints
from fl_sim.rounds.round_evaluation import EvaluateFn
from fl_sim.wire import flower, records, reply_form
from fl_sim.wire.arrivals import Arrived, AsynchronousStrategy

KEPT = "asynchronous"
"""The name under which a checkpoint keeps the schedule, beside the strategy's attributes."""

LINES_WAIT = 0.25
"""Seconds for which lines may wait for the next, where no client trains meanwhile."""
MEMORY_EVERY = 0.1
"""Seconds for which the lines of server steps have the memory that was read last."""


def equal(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Devices that are all alike, of a run that names none."""
    return Drawn(np.ones(len(clients)), np.zeros(len(clients), np.int64))


class AsyncDriver(Driver):
    """One asynchronous run: its server steps, and what is logged of them."""

    def __init__(self, run: Run, *args: Any, concurrency: int, evaluate_virtual: float) -> None:
        super().__init__(run, *args)
        grid, strategy = self.grid, run.strategy
        if not isinstance(strategy, AsynchronousStrategy):
            raise ConfigError(f"run_async: {type(strategy).__name__} is no asynchronous strategy; use run_rounds")
        if not isinstance(grid, SimulationGrid) or grid.learner is None or grid.executor is None:
            raise ConfigError("run_async: needs a SimulationGrid with an app of make_app, whose clients run in blocks")
        self.strategy, self.simulation, self.failures = strategy, grid, self.calls.failures
        nodes = grid.training_nodes
        first = grid.client_of(nodes[0])
        clients = range(first, first + len(nodes)) if isinstance(nodes, range) else [grid.client_of(n) for n in nodes]
        strategy.concurrency = concurrency or len(clients)
        if not 0 < strategy.concurrency <= len(clients):
            raise ConfigError(f"concurrency = {concurrency}: {len(clients)} clients train; choose 1 to {len(clients)}")
        strategy.check_asynchronous()
        grid.waves = Waves(
            grid.learner, grid.executor, grid.block_size, grid.states, self._reader, grid.told, strategy.needs_start
        )
        [message] = flower.requests([(strategy.launch_content(1, run.arrays, run.train_config, 0), nodes[0])], "train")
        settings, model = grid.settings(message), grid.learner.loss.received(records.decode(run.arrays))
        down = sum(map(records.num_bytes, records.of(message.content, ArrayRecord).values()))
        up = reply_bytes(grid.learner, settings, model)
        devices = grid.time.devices if grid.time is not None else Devices(equal, 1)
        clock = EventClock(devices, clients, work_of_clients(grid.learner, settings, down, up), self.calls.seed)
        self.schedule = Schedule(run, strategy, grid, clock, grid.waves, down, self.calls.seed)
        self.classes = devices.classes
        self.expected = expected_replies.of_own(strategy, "train", False, grid.max_examples)
        self.clients, self.memory = _Clients(), Memory(MEMORY_EVERY)
        self.answered = self.failed = self.in_a_row = self.evaluated = 0
        self.every_virtual = whole_nanoseconds("evaluate_virtual", evaluate_virtual)
        self.evaluation.evaluate_fn = self._lines_first(self.evaluation.evaluate_fn)
        if self.every_virtual:
            self.evaluation.also_due = self._virtual_due
        self.saved = RoundCheckpoints(run, grid, self.log, self.saved.checkpoints, self.calls.event, self._state)

    def execute(self) -> RunResult:
        """Run all server steps; lines may wait in memory while these follow each other without training."""
        if self.log is None:
            return super().execute()
        self.log.lines_wait(LINES_WAIT)
        try:
            return super().execute()
        finally:
            self.log.lines_wait(0)

    def _reader(self) -> MessageReader:
        """Of a wave's messages. A wave takes its time, so that lines are written before."""
        if self.log is not None:
            self.log.flush()
        return MessageReader(self.simulation.settings)

    def _lines_first(self, evaluate_fn: EvaluateFn | None) -> EvaluateFn | None:
        """Central evaluation, which takes its time too."""
        if evaluate_fn is None or self.log is None:
            return evaluate_fn
        inner, log = evaluate_fn, self.log

        def evaluated(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            log.flush()
            return inner(server_round, arrays)

        return evaluated

    # Server steps ---------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One server step: let virtual time go on, read the replies that the step takes, step, write the line."""
        run, start = self.run, time.perf_counter()
        self.each("on_round_start")
        self.check_model()
        self.work = RoundWork()
        exchange, good = self._replies()
        arrived = [self._arrived(exchange, launched, reply) for launched, reply in good]
        numbers = [(one.numbers.get("loss"), one.numbers["num-examples"]) for one in arrived]
        new = self.work.pooled(lambda _, replies: self.strategy.stepped(run.model, replies, run.round), arrived)
        self.schedule.stepped = True
        self.calls.log_exchange(exchange)
        row = self._row(exchange, arrived, {launched.number for launched, _ in good})
        losses = [(loss, n) for loss, n in numbers if isinstance(loss, (int, float))]
        if total := sum(n for _, n in losses):
            row |= round_row.of_clients("train", {"loss": sum(loss * n for loss, n in losses) / total})
        arrays = records.encode(new)
        row["update_norm"] = self.adopt(records.decode(arrays), arrays)
        row["seconds"] = time.perf_counter() - start
        self.finish(row)

    def _replies(self) -> tuple[StepExchange, list[tuple[Launched, Any]]]:
        """Read replies until the step has as many good ones as it takes. Raises RoundFailed."""
        run, strategy = self.run, self.strategy
        exchange = StepExchange(run.round, self.clients, expected=self.expected, sink=self.calls.log_clients)
        likes = reply_form.as_model(strategy.reply_form(run.model), {})
        good: list[tuple[Launched, Any]] = []
        before = self.failed
        try:
            while len(good) < (wanted := strategy.replies_a_step):
                taken = self.schedule.collect(wanted - len(good))
                replies = run.grid.pull_messages([launched.number for launched in taken])
                self.answered += len(taken)
                policy = OfAllAnswers(self.failures.share, self.answered, before, strategy.concurrency)
                more = exchange.take(taken, list(replies), likes, policy)
                self.failed = before + len(exchange.failures)
                self.in_a_row = 0 if more else self.in_a_row + len(taken)
                if self.in_a_row >= max(strategy.concurrency, 2) and not more:
                    why = exchange.failures[-1][1] if exchange.failures else "their weight is 0"
                    raise RoundFailed(
                        f"round {run.round}: the last {self.in_a_row} clients all failed; the last: {why}"
                    )
                good += more
                self.schedule.begin_again(taken, more)
        except RoundFailed:
            self.calls.log_exchange(exchange)
            raise
        return exchange, good

    def _arrived(self, exchange: StepExchange, launched: Launched, reply: Any) -> Arrived:
        [arrays] = records.of(reply.content, ArrayRecord).values()
        start = start_model(launched.message) if self.strategy.needs_start else {}
        numbers = records.numbers(reply.content)
        return Arrived(records.decode(arrays), exchange.staleness(launched), launched.flight.client, numbers, start)

    def _row(self, exchange: StepExchange, arrived: Sequence[Arrived], used: Collection[str]) -> dict[str, object]:
        """The columns of a step; launches without a reply are among its dropped clients. ``used``: those applied."""
        run, lost, clock = self.run, self.schedule.lost, self.schedule.clock
        self.schedule.lost = []
        rows = [
            round_row.dropped_client(run.round, one.flight.client)
            | {"reason": why, **facts_of(one, exchange.staleness(one))}
            for one, why in lost
        ]
        self.calls.log_clients(rows)
        row = round_row.of_training(exchange, run.train_config, (), self.work)
        for column in ("clients", "dropped"):
            row[column] = int(str(row[column])) + len(lost)
        row["bytes_down"] = exchange.bytes_down + sum(one.num_bytes for one, _ in lost)
        late = [one.staleness for one in arrived]
        wasted = [*(one for one, _ in lost), *(one for one in exchange.taken if one.number not in used)]
        classes = [one.flight.speed_class for one in exchange.taken]
        return row | {
            "version": run.round,
            "staleness_mean": sum(late) / len(late),
            "staleness_max": max(late),
            "in_flight": len(clock.in_flight),
            "virtual_time": clock.now / SECOND,
            "device_idle": clock.idle(self.strategy.concurrency),
            "wasted_examples": sum(one.flight.samples for one in wasted),
            "counted_by_speed": [classes.count(number) for number in range(self.classes)],
        }

    def _virtual_due(self) -> bool:
        """Whether a multiple of ``evaluate_virtual`` has gone by since the last evaluation that it asked for."""
        passed = self.schedule.clock.now // self.every_virtual
        due, self.evaluated = passed > self.evaluated, passed
        return due

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        counts = [self.answered, self.failed, self.in_a_row, self.evaluated]
        return {KEPT: {"counts": counts, **self.schedule.state()}}

    def restore(self, begin: Checkpoint) -> None:
        """Continue after a checkpoint's server step."""
        own = dict(begin.strategy)
        state = own.pop(KEPT, None)
        if not isinstance(state, dict):
            raise ConfigError(f"the checkpoint of round {begin.round} is of no asynchronous run; begin a new run")
        super().restore(replace(begin, strategy=own))
        self.answered, self.failed, self.in_a_row, self.evaluated = state["counts"]
        self.schedule.restore(state)


class _Clients(dict[int, int]):
    """Node id -> client id, of a simulation's nodes."""

    def get(self, node: int, default: Any = None) -> int:
        return node - flower.FIRST_NODE
