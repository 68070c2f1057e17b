"""One run of a Flower app, written by others: its ServerApp runs in this process on a SimulationGrid, and is logged. No paper.

``Strategy.start`` of any strategy is ``run_rounds`` meanwhile. An app that talks to clients itself (``send_and_receive``,
``push_messages``) gets one row an exchange; its global model is not known, so that the digest of such a row is SHA-256
over all that was said so far, messages and replies. The model that is kept is then the last one that was sent to train.
"""

import hashlib
import time
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from tqdm import tqdm

from experiments.apps.app_log import AppLog
from experiments.apps.project import Project
from experiments.config.choices import Choice
from experiments.config.schema import Config
from experiments.runs.progress import Progress
from fl_sim import RoundFailed, SimulationGrid, run_rounds, tree
from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.grids.monitored import MonitoredGrid, clients_of, phase_of
from fl_sim.logs.writer import versions
from fl_sim.rounds import round_row
from fl_sim.rounds.driver import EvaluateFn
from fl_sim.wire import flower, records

Summary = dict[str, Any]


class Session:
    """One run of an app: what its ServerApp does is logged here."""

    def __init__(self, project: Project, config: Config, quiet: bool, log: AppLog, grid: SimulationGrid) -> None:
        self.project, self.config, self.quiet, self.log, self.grid = project, config, quiet, log, grid
        self.watched = MonitoredGrid(grid, Failures.parse(config.failures), self.begin, self.end)
        self.strategies: list[str] = []
        self.failed: BaseException | None = None
        self.digest: str | None = None
        self.said = hashlib.sha256()
        self.sent: tuple[ArrayRecord, int] | None = None
        self.bar: tqdm[Any] | None = None
        self.started = self.since = time.perf_counter()
        log.rows = []

    def run(self, server_app: ServerApp) -> BaseException | None:
        """Run the ServerApp; returns why it failed, also where the app itself hides it."""

        def start(strategy: Strategy, grid: Grid, *args: Any, **kwargs: Any) -> Result:
            return self.drive(strategy, grid, *args, **kwargs)

        context = flower.context(flower.SERVER_NODE, {}, RecordDict(), self.project.run_config)
        try:
            with flower.driven_by(start), flower.quiet(self.quiet):
                server_app(self.watched, context)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            asked_to_end = isinstance(error, SystemExit) and error.code in (None, 0)
            self.failed = self.failed or (None if asked_to_end else error)
        finally:
            if self.bar is not None:
                self.bar.close()
        if self.sent is not None and not self.strategies:
            try:
                self.log.model(records.decode(self.sent[0]), self.sent[1])
            except TypeError as error:  # arrays of a type that torch does not know
                self.log.event("model_not_saved", reason=str(error))
        return self.failed

    def drive(
        self,
        strategy: Strategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Flower's ``Strategy.start``, by ``run_rounds``."""
        self.log.base = len(self.log.rows)
        self.strategies.append(type(strategy).__name__)
        shown = replace(self.config, rounds=num_rounds, strategy=Choice(f"{self.project.name} {self.strategies[-1]}"))
        try:
            return run_rounds(
                strategy,
                self.grid if grid is self.watched else grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                evaluate_fn,
                log=self.log,
                failures=self.config.failures,
                callbacks=[] if self.quiet else [Progress(shown)],
                seed=self.config.seed,
            )
        except BaseException as error:
            self.failed = self.failed or error
            raise
        finally:
            self.digest = self.log.rows[-1]["digest"] if self.log.rows else None
            self.log.base = 0

    # Exchanges that are the app's own ------------------------------------------------------------------------------

    def begin(self, messages: list[Message]) -> Exchange:
        """Before an exchange; the first one tells the initial model."""
        self.since = time.perf_counter()
        if not self.log.rows:
            first = _arrays(messages)
            self.log.round({"round": 0, "digest": None if first is None else tree.digest(records.decode(first))})
        return Exchange(len(self.log.rows), phase_of(messages), messages, clients_of(self.grid, messages))

    def end(self, tally: Exchange, good: list[Message], error: RoundFailed | None) -> None:
        """After an exchange: its clients' rows, and its own if it did not fail."""
        for client, reason in tally.failures:
            self.log.event("client_failed", round=tally.server_round, client=client, phase=tally.phase, reason=reason)
        self.log.clients(tally.rows)
        if error is not None:
            self.failed = self.failed or error
            self.log.event("run_failed", round=tally.server_round, reason=str(error))
            return
        for message in sorted(tally.messages, key=lambda m: m.metadata.message_id) + sorted(
            good, key=lambda m: m.metadata.reply_to_message_id
        ):
            self.said.update(
                f"{message.metadata.src_node_id}>{message.metadata.dst_node_id} {message.metadata.message_type};".encode()
            )
            _hash(self.said, message.content)
        arrays = _arrays(tally.messages)
        self.sent = (arrays, tally.server_round - 1) if arrays is not None and tally.phase == "train" else self.sent
        row = {
            "round": tally.server_round,
            "exchange": tally.messages[0].metadata.message_type if tally.messages else None,
            "clients": len(tally.messages), "completed": tally.completed, "failed": len(tally.failures), "dropped": 0,
            "examples": tally.sum("examples"), "steps": tally.sum("steps"),
            "bytes_down": tally.bytes_down, "bytes_up": tally.bytes_up,
            "seconds": time.perf_counter() - self.since, "digest": self.said.hexdigest(),
        }  # fmt: skip
        self.log.round({**round_row.of_clients(tally.phase, _means(tally.rows)), **row})
        if not self.quiet:
            self.bar = self.bar if self.bar is not None else tqdm(desc=self.project.name, unit="exchange")
            self.bar.update(1)

    def summary(self, error: BaseException | None) -> Summary:
        """The fields of summary.json: what was last seen of each number; see docs/logs.md."""
        rows, last = self.log.rows, {k: v for row in self.log.rows for k, v in row.items() if v is not None}
        sums = {k: sum(row.get(k) or 0 for row in rows) for k in ("bytes_up", "bytes_down", "failed")}
        return {
            "digest": self.digest or last.get("digest"),
            "status": "completed" if error is None else "failed",
            "rounds": max(len(rows) - 1, 0),
            **{k: last.get(k) for k in ("accuracy", "loss", "val_accuracy")},
            "seconds": time.perf_counter() - self.started,
            "run_dir": str(self.log.path),
            "app": str(self.project.folder),
            "strategy": ", ".join(dict.fromkeys(self.strategies)) or "own rounds",
            "task": self.project.name,
            "model": None,
            "partition": None,
            "seed": self.config.seed,
            "engine": "loop",
            "rounds_to_target": None,
            "bytes_up": sums["bytes_up"],
            "bytes_down": sums["bytes_down"],
            "clients_failed": sums["failed"],
            "moved": 0,
            "bits_changed": False,
            "stopped": None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "versions": versions(),
        }


def _arrays(messages: list[Message]) -> ArrayRecord | None:
    """The first arrays that messages carry."""
    return next((record for message in messages for record in message.content.array_records.values()), None)


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each number over the clients that completed, by examples where they say how many."""
    done = [row for row in rows if row["status"] == "completed"]
    known = set(done[0]).intersection(*done) - {"round", "client", "examples", "steps"} if done else set()
    weights = [row["examples"] or 1 for row in done]
    numbers = [k for k in sorted(known) if all(isinstance(row[k], (int, float)) for row in done)]
    return {k: sum(w * row[k] for w, row in zip(weights, done, strict=True)) / sum(weights) for k in numbers}


def _hash(sha: Any, content: RecordDict) -> None:
    """Names and values of records, in the order of their names."""
    for name in sorted(content):
        record = content[name]
        for key in sorted(record):
            value: Any = record[key]
            said = (value.dtype, value.shape) if isinstance(record, ArrayRecord) else value
            sha.update(f"{name}:{key}:{said!r};".encode())
            sha.update(value.data if isinstance(record, ArrayRecord) else b"")
