"""Several runs of an experiment trained as one batch, for ``--vmap_over local.lr=.01,.03,.1 --seed 0..4``.

Each run has a folder of its own and the numbers that it would have alone, up to rounding. The batch itself is run by
``fl_sim/executors/lockstep.py``.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.progress import Progress
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim import Callback
from fl_sim.engines.choose import Choice
from fl_sim.executors.lockstep import Lockstep, LockstepExecutor
from fl_sim.kernels.precision import prepare

Result = tuple[Summary, BaseException | None]
"""The summary of a run, and its error where it failed."""


def run_together(
    configs: Sequence[Config],
    axes: str,
    quiet: bool,
    trust_pickle: bool = False,
    callbacks: Callable[[], Sequence[Callback]] = tuple,
) -> Iterable[Result]:
    """Train runs that differ only in numbers as one batch.

    A model that vmap cannot take is trained one run after another instead, and a note on stderr says why.

    Parameters
    ----------
    configs : sequence of Config
        One for each run.
    axes : str
        The value of ``--vmap_over``: the settings in which the runs differ.
    quiet : bool
        Whether the progress bar of the first run is left out.
    trust_pickle : bool (default: False)
        As of ``execute``.
    callbacks : Callable
        Makes the callbacks of one run.

    Returns
    -------
    iterable of (dict, BaseException or None)
        The summary of each run, and the error of a failed one.
    """
    first = build(configs[0])
    if first.engine.by_sizes:  # several runs fill a batch that one run does not
        configs = [replace(config, engine="vmap") for config in configs]
        first = build(configs[0])
    learner, config = first.learner, configs[0]
    if first.engine.name != "vmap":
        print(
            f"note: one run after another, not as one batch: {first.engine.reason or 'the engine is loop'}",
            file=sys.stderr,
        )
        return (execute(build(config), quiet, callbacks(), trust_pickle=trust_pickle) for config in configs)
    prepare(config.device, config.threads, config.precision)
    keys = [part.partition("=")[0].strip() for part in axes.split(";")]
    reason = f"one of {len(configs)} runs of a batch: vmap_over {axes}"
    reason = "; ".join(filter(None, (reason, first.engine.reason)))  # what is to be known of the loss, say
    for note in () if quiet else filter(None, (first.engine.reason, *first.notes)):
        print(f"note: {note}", file=sys.stderr)

    def body(number: int) -> Callable[[LockstepExecutor], Result]:
        def run(executor: LockstepExecutor) -> Result:
            setup = replace(build(configs[number], workers=executor), engine=Choice("vmap", reason))
            executor.learner = setup.learner
            title = f"{len(configs)} runs of {config.strategy.name}"
            shown = [Progress(config, title)] if number == 0 and not quiet else []
            return execute(setup, True, [*callbacks(), *shown], trust_pickle=trust_pickle)

        return run

    results: list[Result] = Lockstep(learner, keys, config.chunk).run([body(number) for number in range(len(configs))])
    return results
