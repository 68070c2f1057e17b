"""One run of an ordinary Flower app: its ServerApp runs in this process on a SimulationGrid, and its rounds are logged.

While it runs, ``Strategy.start`` of any strategy is replaced by ``run_rounds``. An app that exchanges messages with
clients itself (``send_and_receive``, ``push_messages``) gets one row of the round log for each exchange
(``experiments.apps.exchange_log``).
"""

import math
import threading
import time
from dataclasses import replace
from inspect import signature

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy

from experiments.apps.app_log import AppLog
from experiments.apps.exchange_log import ExchangeLog
from experiments.apps.project import Project
from experiments.apps.unkeyed_sources import watched
from experiments.config.choices import Choice
from experiments.config.schema import Config
from experiments.runs.progress import Progress
from experiments.runs.records.package_versions import versions
from experiments.runs.summary import of_final_model
from fl_sim import SimulationGrid, run_rounds
from fl_sim.grids.exchange import Failures
from fl_sim.grids.monitored import MonitoredGrid
from fl_sim.grids.wrapped import WrappedGrid
from fl_sim.logs.reader import not_finite
from fl_sim.wire import flower, legacy_flower, records

Summary = dict[str, object]
"""The fields of summary.json."""
GRACE_S = 1.0
"""How long a thread may send nothing after the app's main function has returned."""


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
        grid.nan_passes = True
        self.exchanges = ExchangeLog(log, grid, "" if quiet else project.name)
        begin, end = self.exchanges.begin, self.exchanges.end
        self.monitored = MonitoredGrid(grid, Failures.parse(config.failures), begin, end)
        self.strategies: list[str] = []
        self.failed: BaseException | None = None
        self.digest: str | None = None
        self.started = time.perf_counter()
        log.rows = []

    def run(self, server_app: ServerApp) -> BaseException | None:
        """Run the ServerApp. Returns the error of a failed run, even where the app caught it."""

        def start(strategy: Strategy, grid: Grid, *args: object, **kwargs: object) -> Result:
            return self.drive(strategy, grid, *args, **kwargs)

        found: dict[str, str] = {}
        before = set(threading.enumerate())
        context = flower.context(flower.SERVER_NODE, {}, RecordDict(), self.project.run_config)
        try:
            with (
                watched(self.project.folder, found),
                flower.driven_by(start),
                legacy_flower.in_order(self.keep),
            ):
                server_app(self.monitored, context)
                self.await_threads([t for t in threading.enumerate() if t not in before and not t.daemon])
        except BaseException as error:
            regular_exit = isinstance(error, SystemExit) and error.code in (None, 0)
            self.failed = self.failed or (None if regular_exit else error)
        finally:
            self.exchanges.close()
            with self.monitored.lock:
                self.monitored.closed = "the app's main function has returned, and its run has ended"
        for what, place in found.items():
            why = f"the app {what} ({place}): where that enters messages or the model, no digest repeats"
            self.log.event("not_repeatable", reason=why)
        self.failed = self.failed or self.exchanges.failed
        if self.exchanges.trained_model is not None and not self.strategies:
            model, others = records.split(self.exchanges.trained_model[0])
            self.log.model(model, self.exchanges.trained_model[1])
            if others:
                lost = f"torch cannot hold these arrays: {', '.join(others)[:500]}"
                self.log.event("model_not_saved", names=others, reason=lost)
        return self.failed

    def await_threads(self, threads: list[threading.Thread]) -> None:
        """Let threads that outlive the app's main function finish, as Python does before a process ends.

        Given up for one that sends nothing for ``GRACE_S``, as the idle threads of a pool do.
        """
        for thread in threads:
            exchanges = -1
            while thread.is_alive() and exchanges != len(self.log.rows):
                exchanges = len(self.log.rows)
                thread.join(GRACE_S)
                with self.monitored.lock:  # an exchange that is under way ends
                    pass
        if any(thread.is_alive() for thread in threads):
            why = "threads of the app go on after its main function has returned: what they send from now on fails"
            self.log.event("not_repeatable", reason=why)

    def keep(self, arrays: ArrayRecord) -> None:
        """The final model of an app of the API before messages."""
        self.exchanges.trained_model = arrays, len(self.log.rows) - 1

    def drive(self, strategy: Strategy, grid: Grid, *args: object, **kwargs: object) -> Result:
        """Replaces Flower's ``Strategy.start``: ``run_rounds``, which has the same parameters, drives the rounds."""
        behind = self.grid if grid is self.monitored else WrappedGrid(grid, self.monitored, self.grid)
        call = signature(run_rounds).bind(strategy, behind, *args, **kwargs)
        call.apply_defaults()
        name, num_rounds = type(strategy).__name__, call.arguments["num_rounds"]
        shown = replace(self.config, rounds=num_rounds, strategy=Choice(f"{self.project.name} {name}"))
        call.arguments |= {
            "log": self.log,
            "failures": self.config.failures,
            "callbacks": [] if self.quiet else [Progress(shown)],
            "seed": self.config.seed,
        }
        with self.monitored.lock:
            self.exchanges.note_thread(len(self.log.rows))
            self.log.base = len(self.log.rows)
            self.strategies.append(name)
            try:
                strategy.summary()
                return run_rounds(*call.args, **call.kwargs)
            except BaseException as error:
                self.failed = self.failed or error
                raise
            finally:
                self.digest = self.log.rows[-1]["digest"] if self.log.rows else None
                self.log.base = 0
                self.monitored.begin, self.monitored.end = self.exchanges.begin, self.exchanges.end

    def summary(self, error: BaseException | None) -> Summary:
        """The fields of summary.json (docs/logs.md); accuracies and losses are those of the final model.

        One that is NaN or infinite is null.
        """
        rows, last = self.log.rows, of_final_model(self.log.rows, self.digest)
        last = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in last.items()}
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
            "filled": 0,
            "not_finite": not_finite(self.log.path),
            "model_notes": None,
            "bits_changed": self.log.timeouts > 0,
            "stopped": None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "versions": versions(),
        }
