"""``execute``: one run from its parts to its summary, which is written for failed and interrupted runs too."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.command_ends import reason
from experiments.config.schema import Config
from experiments.provenance import of_run
from experiments.runs.data import names
from experiments.runs.plan import predict
from experiments.runs.progress import Progress
from experiments.runs.records.keep_best import KeepBest
from experiments.runs.records.package_versions import versions
from experiments.runs.records.partition_record import record_partition
from experiments.runs.resume import Resumed, start_of
from experiments.runs.setup import Setup
from experiments.runs.stop import Stopping
from experiments.runs.summary import Summary, summarise
from experiments.runs.trial import ClientFailed
from experiments.runs.virtual_time.run_clock import with_digest
from fl_sim import Callback, RoundFailed, RoundLog, run_rounds
from fl_sim.kernels.precision import prepare
from fl_sim.leaving import no_exit
from fl_sim.logs.columns import NAMES, SCHEMA
from fl_sim.logs.writer import plain
from fl_sim.rounds.asynchronous import run_async
from fl_sim.rounds.callbacks import RunResult
from fl_sim.rounds.checkpoint import Checkpoint, Checkpoints
from fl_sim.rounds.round_evaluation import NEVER
from fl_sim.wire.arrivals import AsynchronousStrategy

RESUME = "python -m experiments.run --resume"
MOST_LISTED = 100
"""How many clients without samples an event lists."""
WHY_IDLE = "all their samples are in the test or validation share"
"""Why a natural client never trains."""


def execute(
    setup: Setup,
    quiet: bool,
    callbacks: Sequence[Callback] = (),
    resumed: Resumed | None = None,
    facts: Mapping[str, object] | None = None,
    trust_pickle: bool = False,
) -> tuple[Summary, BaseException | None]:
    """Run to the end and write the summary, also of a failed run; returns the summary, and the error or None.

    Parameters
    ----------
    setup : Setup
        The parts of the run, as ``build`` returns them.
    quiet : bool
        Whether the progress bar and notes are left out.
    callbacks : Sequence[Callback]
        The user's callbacks.
    resumed : Resumed, optional
        The folder of a run that continues, and its checkpoint; default: a new folder.
    facts, trust_pickle : Mapping, bool
        More plain values to keep in each checkpoint; what ``forked`` takes.
    """
    config, written, error, stopped = setup.config, resolved(setup), None, ""
    begin, own = start_of(setup, resumed, trust_pickle)
    log = open_log(config, written, resumed)
    log.state_dict = setup.loss.form.state_dict
    prepare(config.device, config.threads, config.precision)
    spent = float(begin.facts.get("seconds", 0.0)) if begin is not None else 0.0
    start, keeper, shown = time.perf_counter(), _Keeper(), watching(config, log, quiet)
    facts = {**(facts or {}), "config": written.to_dict(), "versions": versions(), "seconds": spent}
    with log, no_exit(), guarded_on_ray(setup, log, spent):
        try:
            log_start(setup, log, quiet, resumed, begin)
            result = driver_of(setup)(
                setup.strategy,
                setup.grid,
                setup.initial,
                config.rounds,
                train_config=setup.train_config,
                evaluate_config=setup.evaluate_config,
                evaluate_fn=setup.evaluate_fn,
                log=log,
                failures=config.failures,
                callbacks=[*own, *callbacks, Stopping(config, spent), keeper, *shown],
                seed=config.seed,
                checkpoints=checkpoints_of(setup, log.path, facts),
                begin=begin,
                digest_every=config.digest_every,
                evaluate_every=config.evaluate_every,
            )
            stopped = result.stopped
        except BaseException as caught:
            error, stopped = caught, reason(caught)
        summary = summarise(setup, keeper.rows, error, stopped, spent + time.perf_counter() - start, log.path)
        if failed := log_end(log, summary, written, setup.grid.reduced_chunk):
            error, summary["status"] = error or failed, "failed"
    setup.grid.close()
    return plain(summary), error


def watching(config: Config, log: RoundLog, quiet: bool) -> list[Callback]:
    """The callbacks that only look: they change nothing of the run."""
    return [*([KeepBest(log)] if config.keep_best else []), *([] if quiet else [Progress(config)])]


def driver_of(setup: Setup) -> Callable[..., RunResult]:
    """What drives a run's strategy, in rounds or server steps."""
    if not isinstance(setup.strategy, AsynchronousStrategy):
        return run_rounds
    config = setup.config
    return partial(run_async, concurrency=config.concurrency, evaluate_virtual=config.evaluate_virtual)


def checkpoints_of(setup: Setup, folder: Path, facts: Mapping[str, object]) -> Checkpoints:
    """When a run's checkpoints are due; of an asynchronous one by default after its last step alone."""
    every = setup.config.checkpoint_every or (NEVER if isinstance(setup.strategy, AsynchronousStrategy) else 0)
    return Checkpoints(folder, every, setup.config.checkpoint_keep, facts)


@contextmanager
def guarded_on_ray(setup: Setup, log: RoundLog, spent: float) -> Iterator[None]:
    """While open, a run on Ray gets its summary even where Ray ends this process; ``spent``: seconds before it."""
    if setup.config.engine != "ray":
        yield
        return
    from fl_sim.executors.ray.guardian import guarded  # imported here, because all else works without Ray

    start = time.perf_counter()

    def abandoned() -> None:
        why = "the process of the run was killed, or ended by Ray, as it is where its raylet or gcs_server dies"
        error = RoundFailed(f"engine = 'ray': {why}")
        rows = log.rounds_so_far()
        log.event("run_failed", round=rows[-1]["round"] if rows else 0, reason=f"RoundFailed: {error}")
        log.summary(summarise(setup, rows, error, "", spent + time.perf_counter() - start, log.path))
        print(f"run failed: {error}\nto go on: {RESUME} {log.path}", file=sys.stderr)

    with guarded(abandoned):
        yield


def open_log(config: Config, written: Config, resumed: Resumed | None) -> RoundLog:
    """The run's log: in a new folder, or in the old one, cut back to the round after which the run continues."""
    if resumed is None:
        name = f"{config.task.name}-{config.strategy.name}-seed{config.seed}".replace(":", ".")
        return RoundLog.create(Path(config.out), name, written.to_toml())
    begin = resumed.begin
    log = RoundLog.reopen(
        resumed.folder, begin.positions if begin else {}, begin.round if begin else -1, begin.line if begin else ""
    )
    log.config(written.to_toml())
    return log


def log_start(
    setup: Setup, log: RoundLog, quiet: bool, resumed: Resumed | None = None, begin: Checkpoint | None = None
) -> None:
    """The first events of a run; of one that continues, what its folder does not hold; of a fork, who has trained."""
    config = setup.config
    if resumed is not None:
        log_lost(setup, log)
        if resumed.begin is not None:
            here = {"machine": platform.machine(), **of_run(), "versions": versions()}
            log.event("resumed", round=resumed.begin.round, **here)
            return
    on_ray = config.engine == "ray" and not config.client_timeout  # the trial would wait for a client that hangs
    if on_ray and (not config.ray.num_workers or (config.device != "cpu" and not config.ray.num_gpus)):
        log.event("plan", **plan_workers(setup))
    log.event(
        "start",
        schema=SCHEMA,
        engine=setup.engine.name,
        note=setup.engine.reason,
        moved=setup.partition.moved,
        filled=setup.partition.filled,
        machine=platform.machine(),
        **of_run(),
    )
    log_samples(setup, log, quiet)
    record_partition(setup, log)
    if begin is not None and begin.facts.get("seen"):
        log.event("unseen_trained", reason=begin.facts["seen"])
    for note in setup.notes:
        log.event("model", reason=note)
    for note in () if quiet else (setup.engine.reason, *setup.notes):
        if note:
            print(f"note: {note}", file=sys.stderr)


def log_samples(setup: Setup, log: RoundLog, quiet: bool) -> None:
    """Write ``names.json``, and the events ``samples`` and ``clients_lost``, where there is anything to tell."""
    found = names(setup.config, setup.task, setup.partition)
    if setup.own_metrics:
        found["own_metrics"] = list(setup.own_metrics)
    if found:
        log.names(found)
    for note in setup.task.notes:
        log.event("samples", note=note)
    idle = setup.partition.idle
    if not len(idle):
        return
    known = setup.task.client_names
    lost = [int(c) for c in idle[:MOST_LISTED]]
    called = lost if known is None else [known[c] for c in lost]
    log.event("clients_lost", count=len(idle), clients=lost, names=called, reason=WHY_IDLE)
    if not quiet:
        more = f" and {len(idle) - MOST_LISTED} more" if len(idle) > MOST_LISTED else ""
        print(f"note: clients {', '.join(map(str, called))}{more} never train: {WHY_IDLE}", file=sys.stderr)


def log_lost(setup: Setup, log: RoundLog) -> None:
    """Tell, in the log and on stderr, which metrics of a run that continues came from Python and are not stored."""
    path = log.path / NAMES
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    have = {*setup.task.metrics, *setup.task.set_metrics}
    if lost := [name for name in stored.get("own_metrics", ()) if name not in have]:
        reason = "they were given to run(...), and a run's folder does not hold functions and objects"
        log.event("metrics_lost", names=lost, reason=reason)
        print(f"warning: the run goes on without the metrics {', '.join(lost)}: {reason}", file=sys.stderr)


def log_end(log: RoundLog, summary: Summary, written: Config, reduced_chunk: int) -> OSError | None:
    """Write the summary, and into the config a chunk that lack of memory reduced; returns the error of a full disk."""
    try:
        if reduced_chunk:
            log.config(replace(written, chunk=reduced_chunk).to_toml())
        log.summary(summary)
    except OSError as error:
        return error
    return None


def plan_workers(setup: Setup) -> dict[str, object]:
    """Choose those settings of Ray's workers that the config leaves open; no result depends on them.

    Returns the prediction of time and memory, for the event ``plan``.
    """
    try:
        prediction, settings = predict(setup)
    except ClientFailed as error:  # the run reports it in full
        return {"fails": str(error)}
    from fl_sim.executors.ray.executor import RayExecutor  # imported here, because all else works without Ray

    if isinstance(setup.executor, RayExecutor):
        setup.executor.settings = settings
    return prediction


def resolved(setup: Setup) -> Config:
    """The config with the engine and the data folder that were chosen, so that its file repeats the run anywhere."""
    config, folder, engine = setup.config, os.environ.get("FL_SIM_DATA"), setup.engine.name
    on_ray = config.engine == "ray"
    written = replace(config, ray=replace(config.ray, engine=engine)) if on_ray else replace(config, engine=engine)
    if config.data_dir is None and folder and "data_dir" in getattr(config.task.component, "__annotations__", {}):
        written = replace(written, data_dir=str(Path(folder).resolve()))
    return with_digest(written, setup.grid)


class _Keeper(Callback):
    """A callback that keeps the rows of the round log, so that the summary of a failed run has them too."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def on_run_start(self, run: Any) -> None:
        self.rows = run.rows
