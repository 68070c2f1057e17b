"""One run of an ordinary Flower app: its ServerApp runs in this process on a SimulationGrid, and its rounds are logged.

While it runs, ``Strategy.start`` of any strategy is replaced by ``run_rounds``. An app that exchanges messages with
clients itself (``send_and_receive``, ``push_messages``) gets one row of the round log for each exchange. Its global
model is not known: the digest in such a row is the SHA-256 of all messages and replies so far, and the model that is
saved is the last one that was sent to clients for training.
"""

import hashlib
import time
from dataclasses import replace
from inspect import signature
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
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
from fl_sim.logs.reader import not_finite
from fl_sim.logs.writer import versions
from fl_sim.rounds import round_row
from fl_sim.wire import flower, records

Summary = dict[str, object]
"""The fields of summary.json."""


class ServerAppRun:
    """One run of an app, with its log.

    Parameters
    ----------
    project : Project
        The app's folder and config.
    config : Config
        Settings of the run.
    quiet : bool
        Whether progress bars and Flower's own messages are left out.
    log : AppLog
        The round log, which must be open.
    grid : SimulationGrid
        Carries messages to the app's ClientApp.
    """

    def __init__(self, project: Project, config: Config, quiet: bool, log: AppLog, grid: SimulationGrid) -> None:
        self.project, self.config, self.quiet, self.log, self.grid = project, config, quiet, log, grid
        self.monitored = MonitoredGrid(grid, Failures.parse(config.failures), self.begin_exchange, self.end_exchange)
        self.strategies: list[str] = []
        self.failed: BaseException | None = None
        self.digest: str | None = None
        self.exchanged = hashlib.sha256()
        self.trained_model: tuple[ArrayRecord, int] | None = None
        self.bar: tqdm[Any] | None = None
        self.started = self.exchange_start = time.perf_counter()
        log.rows = []

    def run(self, server_app: ServerApp) -> BaseException | None:
        """Run the ServerApp. Returns the error of a failed run, even where the app caught it."""

        def start(strategy: Strategy, grid: Grid, *args: object, **kwargs: object) -> Result:
            return self.drive(strategy, grid, *args, **kwargs)

        context = flower.context(flower.SERVER_NODE, {}, RecordDict(), self.project.run_config)
        try:
            with flower.driven_by(start), flower.quiet(self.quiet):
                server_app(self.monitored, context)
        except BaseException as error:
            regular_exit = isinstance(error, SystemExit) and error.code in (None, 0)
            self.failed = self.failed or (None if regular_exit else error)
        finally:
            if self.bar is not None:
                self.bar.close()
        if self.trained_model is not None and not self.strategies:
            try:
                self.log.model(records.decode(self.trained_model[0]), self.trained_model[1])
            except TypeError as error:  # arrays of a type that torch does not know
                self.log.event("model_not_saved", reason=str(error))
        return self.failed

    def drive(self, strategy: Strategy, grid: Grid, *args: object, **kwargs: object) -> Result:
        """Replaces Flower's ``Strategy.start``: ``run_rounds``, which has the same parameters, drives the rounds."""
        call = signature(run_rounds).bind(strategy, self.grid if grid is self.monitored else grid, *args, **kwargs)
        call.apply_defaults()
        name, num_rounds = type(strategy).__name__, call.arguments["num_rounds"]
        self.log.base = len(self.log.rows)
        self.strategies.append(name)
        shown = replace(self.config, rounds=num_rounds, strategy=Choice(f"{self.project.name} {name}"))
        call.arguments |= {
            "log": self.log,
            "failures": self.config.failures,
            "callbacks": [] if self.quiet else [Progress(shown)],
            "seed": self.config.seed,
        }
        try:
            return run_rounds(*call.args, **call.kwargs)
        except BaseException as error:
            self.failed = self.failed or error
            raise
        finally:
            self.digest = self.log.rows[-1]["digest"] if self.log.rows else None
            self.log.base = 0

    # Exchanges of messages that the app starts itself ---------------------------------------------------------------

    def begin_exchange(self, messages: list[Message]) -> Exchange:
        """Called before an exchange: start its counts. The first one also shows the initial model, which is logged."""
        self.exchange_start = time.perf_counter()
        if not self.log.rows:
            first = _arrays(messages)
            self.log.round({"round": 0, "digest": None if first is None else tree.digest(records.decode(first))})
        return Exchange(len(self.log.rows), phase_of(messages), messages, clients_of(self.grid, messages))

    def end_exchange(self, exchange: Exchange, good: list[Message], error: RoundFailed | None) -> None:
        """Called after an exchange: log its clients' rows, and its own row if it did not fail."""
        for client, reason in exchange.failures:
            self.log.event(
                "client_failed", round=exchange.server_round, client=client, phase=exchange.phase, reason=reason
            )
        self.log.clients(exchange.rows)
        if error is not None:
            self.failed = self.failed or error
            self.log.event("run_failed", round=exchange.server_round, reason=str(error))
            return
        sent = sorted(exchange.messages, key=lambda m: m.metadata.message_id)
        for message in sent + sorted(good, key=lambda m: m.metadata.reply_to_message_id):
            meta = message.metadata
            self.exchanged.update(f"{meta.src_node_id}>{meta.dst_node_id} {meta.message_type};".encode())
            _hash(self.exchanged, message.content)
        arrays = _arrays(exchange.messages)
        if arrays is not None and exchange.phase == "train":
            self.trained_model = arrays, exchange.server_round - 1
        row = {
            "round": exchange.server_round,
            "exchange": exchange.messages[0].metadata.message_type if exchange.messages else None,
            "clients": len(exchange.messages), "completed": exchange.completed,
            "failed": len(exchange.failures), "dropped": 0,
            "examples": exchange.sum("examples"), "steps": exchange.sum("steps"),
            "bytes_down": exchange.bytes_down, "bytes_up": exchange.bytes_up,
            "seconds": time.perf_counter() - self.exchange_start, "digest": self.exchanged.hexdigest(),
        }  # fmt: skip
        self.log.round({**round_row.of_clients(exchange.phase, _means(exchange.rows)), **row})
        if not self.quiet:
            self.bar = self.bar if self.bar is not None else tqdm(desc=self.project.name, unit="exchange")
            self.bar.update(1)

    def summary(self, error: BaseException | None) -> Summary:
        """The fields of summary.json (docs/logs.md); of each number the last value that is not null counts."""
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
            "not_finite": not_finite(self.log.path),
            "model_notes": None,
            "bits_changed": False,
            "stopped": None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "versions": versions(),
        }


def _arrays(messages: list[Message]) -> ArrayRecord | None:
    """The first ArrayRecord that a message carries; None where none does."""
    return next((record for message in messages for record in message.content.array_records.values()), None)


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each number over the clients that completed, weighted by their examples where these are known."""
    done = [row for row in rows if row["status"] == "completed"]
    known = set(done[0]).intersection(*done) - {"round", "client", "examples", "steps"} if done else set()
    weights = [row["examples"] or 1 for row in done]
    numbers = [k for k in sorted(known) if all(isinstance(row[k], (int, float)) for row in done)]
    return {k: sum(w * row[k] for w, row in zip(weights, done, strict=True)) / sum(weights) for k in numbers}


def _hash(sha: "hashlib._Hash", content: RecordDict) -> None:
    """Add the names and values of records to a hash, in the order of their names."""
    for name in sorted(content):
        record = content[name]
        for key in sorted(record):
            value: Any = record[key]
            header = (value.dtype, value.shape) if isinstance(record, ArrayRecord) else value
            sha.update(f"{name}:{key}:{header!r};".encode())
            sha.update(value.data if isinstance(record, ArrayRecord) else b"")
