"""``run_async``: drives an asynchronous strategy on virtual devices, beside ``run_rounds``."""

from collections.abc import Sequence

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from fl_sim.grids.exchange import Failures
from fl_sim.logs.writer import RoundLog
from fl_sim.rounds.asynchronous.async_driver import AsyncDriver
from fl_sim.rounds.callbacks import Callback, Run, RunResult
from fl_sim.rounds.checkpoint import Checkpoint, Checkpoints
from fl_sim.rounds.round_evaluation import NEVER, EvaluateFn
from fl_sim.wire.arrivals import AsynchronousStrategy


def run_async(
    strategy: AsynchronousStrategy,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int = 3,
    timeout: float = 3600,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    evaluate_fn: EvaluateFn | None = None,
    *,
    concurrency: int = 0,
    log: RoundLog | None = None,
    failures: str = "raise",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    begin: Checkpoint | None = None,
    digest_every: int = 0,
    evaluate_every: int = 0,
    evaluate_virtual: float = 0.0,
) -> RunResult:
    """Run ``num_rounds`` server steps of an asynchronous strategy on a SimulationGrid.

    Parameters are those of ``run_rounds``, with these differences; a round is a server step.

    Parameters
    ----------
    concurrency : int (default: 0)
        Clients in flight at a time; 0: all that train.
    failures : str (default: "raise")
        ``tolerate:SHARE`` is of all clients that have answered in the run so far, and at least of those in flight.
    checkpoints : Checkpoints, optional
        A run that is broken off has the last one that was due, and none of its last step.
    digest_every, evaluate_every : int (default: 0)
        0: of the initial and the final model only.
    evaluate_virtual : float (default: 0)
        Virtual seconds between calls of ``evaluate_fn``: after the first step at or after each multiple; 0: none.

    Raises
    ------
    ConfigError
        For a strategy or a grid that cannot run so, or a concurrency above the number of clients.
    RoundFailed
        When a server step cannot do what was requested. The last good model is then in the log's folder.
    """
    configs = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
    run = Run(strategy, grid, initial_arrays, num_rounds, *configs)
    run.log = log
    every = evaluate_every or NEVER, digest_every or NEVER
    how = Failures.parse(failures), callbacks, seed, checkpoints, begin
    driver = AsyncDriver(
        run, timeout, evaluate_fn, every, log, *how, concurrency=concurrency, evaluate_virtual=evaluate_virtual
    )
    return driver.execute()
