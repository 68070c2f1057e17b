"""Evaluation of the global model, central and on clients: by a schedule, and of the final model however a run ends."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord

from fl_sim.logs.writer import RoundLog
from fl_sim.rounds import not_finite, round_row
from fl_sim.rounds.callbacks import Run, RunResult
from fl_sim.rounds.strategy_calls import StrategyCalls
from fl_sim.wire import flower
from fl_sim.wire.pool import PoolingStrategy

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
"""``(round, global model) -> metrics``, or None where this round is not evaluated."""
NEVER = 2**62
"""So many rounds between evaluations, or digests, that only the initial and the final model have one."""
Columns = dict[str, object]
"""Numbers of evaluations, by the columns of a round's line."""


@dataclass(frozen=True)
class OnlyAtTheEnd:
    """What the log has of a round because it was the last: a run that is made longer goes on without it."""

    columns: frozenset[str] = frozenset()
    """Those of the evaluations that no schedule asked for, in the round's line."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each log file before these evaluations; empty where there were none."""

    def with_columns(self, more: Iterable[str]) -> "OnlyAtTheEnd":
        """The same with more columns."""
        return replace(self, columns=self.columns | frozenset(more))


class RoundEvaluation:
    """Evaluates ``run.model`` in ``run.round``; knows what of it has been done.

    Parameters
    ----------
    run : Run
        The run under way.
    calls : StrategyCalls
        Calls the strategy's hooks, and exchanges their messages.
    result : RunResult
        Receives Flower's records of metrics.
    evaluate_fn : Callable or None
        Central evaluation.
    every : int
        Rounds between central evaluations.
    """

    def __init__(
        self, run: Run, calls: StrategyCalls, result: RunResult, evaluate_fn: EvaluateFn | None, every: int
    ) -> None:
        self.run, self.calls, self.result, self.evaluate_fn, self.every = run, calls, result, evaluate_fn, every
        self.also_due: Callable[[], bool] = lambda: False
        """Whether the model is evaluated centrally in a round that ``every`` does not name."""
        self._central = self._clients = -1
        """The last round in which the model was evaluated centrally, and in which clients were asked."""

    def of_round(self, row: Columns, log: RoundLog | None) -> tuple[bool, OnlyAtTheEnd | None]:
        """Evaluate this round's model into ``row``, in a run's last round whatever the schedules say.

        Returns
        -------
        (whether a schedule asked for an evaluation, what only the last round asked for or None)
        """
        found = self.by_schedule()
        row |= found or {}
        not_finite.report(self.calls.event, row)
        if self.run.round != self.run.num_rounds:
            return found is not None, None
        positions = log.positions if log is not None else {}
        more = self.rest()
        row |= more or {}
        not_finite.report(self.calls.event, more or {})
        return found is not None, None if more is None else OnlyAtTheEnd(frozenset(more), positions)

    def by_schedule(self) -> Columns | None:
        """This round's evaluations; None where none is due."""
        run, found = self.run, list[Columns | None]()
        if run.round and (self._personal_due() or run.round != run.num_rounds):
            found.append(self._on_clients(run.evaluate_config))
        also = self.also_due()  # asked in each round, because it keeps count
        if also or run.round % self.every == 0:
            found.append(self._centrally())
        return _together(found)

    def rest(self, ask_clients: bool = True) -> Columns | None:
        """The evaluations that the final model lacks, because no schedule asked for them in its round; None: none.

        Clients are asked only for this project's personal evaluation, and where ``ask_clients``: strategies of others
        decide by themselves when to evaluate.
        """
        run, found = self.run, list[Columns | None]()
        if ask_clients and self._clients != run.round and run.evaluate_config.get("personalize.steps"):
            found.append(self._on_clients(ConfigRecord({**run.evaluate_config, "rounds": run.round})))
        if self._central != run.round:
            found.append(self._centrally())
        return _together(found)

    def complete(self, row: Columns, completed: Callable[[Columns], None], ask_clients: bool = True) -> None:
        """``rest`` of the final model, into ``row``, that of the last round; ``completed(row)`` if there was any."""
        start, found = time.perf_counter(), self.rest(ask_clients)
        if found is None:
            return
        not_finite.report(self.calls.event, found)
        before = row.get("evaluate_seconds")
        seconds = (before if isinstance(before, float) else 0.0) + time.perf_counter() - start
        row |= {**found, "evaluate_seconds": seconds}
        completed(row)

    def complete_failed(
        self, row: Columns, is_of: Callable[[Columns], bool], completed: Callable[[Columns], None], ask_clients: bool
    ) -> None:
        """``complete`` in a run that has failed, if ``is_of(row)``: the model is that of ``row``, the last one.

        What fails here too is an event.
        """
        run, failed = self.run, self.run.round
        try:
            if is_of(row):
                run.round = int(str(row["round"]))
                self.complete(row, completed, ask_clients)
        except Exception as error:
            self.calls.event("not_evaluated", reason=f"{type(error).__name__}: {error}")
        finally:
            run.round = failed

    def resumed(self, row: Mapping[str, object]) -> None:
        """A run goes on after the round of ``row``, a line of its log: note which evaluations it has."""
        number = self.run.round
        if number % self.every == 0 or any(name in row for name in round_row.CENTRAL):
            self._central = number
        if (number and self._personal_due()) or any(name.startswith(round_row.PERSONAL) for name in row):
            self._clients = number

    def _personal_due(self) -> bool:
        """Whether clients may be asked in this round, whatever the last one is; a strategy of others decides itself."""
        config = self.run.evaluate_config
        every = config.get("personalize.every", 0)
        return not config.get("personalize.steps") or bool(every and self.run.round % int(str(every)) == 0)

    def _centrally(self) -> Columns | None:
        run, self._central = self.run, self.run.round
        with flower.keyed_hook(self.calls.seed, "evaluate_fn", run.round):
            metrics = self.evaluate_fn(run.round, run.arrays) if self.evaluate_fn else None
        if metrics is None:
            return None
        self.result.evaluate_metrics_serverapp[run.round] = metrics
        return round_row.of_central(metrics)

    def _on_clients(self, config: ConfigRecord) -> Columns | None:
        """Run the strategy's evaluation on clients; None where it has none in this round."""
        run, calls = self.run, self.calls
        if isinstance(run.strategy, PoolingStrategy) and not run.strategy.evaluates(run.round, config):
            return None
        phase = getattr(run.strategy, "evaluation", "evaluate" if calls.foreign else "personal")
        messages = calls.hook("configure_evaluate", run.arrays, config)
        self._clients = run.round if messages else self._clients
        exchange, replies = calls.exchange(phase, messages)
        try:
            unused = replies == [] and exchange.completed
            metrics: MetricRecord | None = None if unused else calls.hook("aggregate_evaluate", replies)
        finally:
            not_finite.report_clients(calls.event, exchange)
            calls.log_exchange(exchange)
        if metrics is None:
            return None
        self.result.evaluate_metrics_clientapp[run.round] = metrics
        return round_row.of_evaluation(metrics)


def _together(found: list[Columns | None]) -> Columns | None:
    """The columns of several evaluations; None where none took place."""
    done = [columns for columns in found if columns is not None]
    return {k: v for columns in done for k, v in columns.items()} if done else None
