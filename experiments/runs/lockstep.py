"""``--vmap_over local.lr=.01,.03,.1 --seed 0..4``: fifteen runs trained as one batch, each equal to its own run. No paper.

One run folder each, as if they had run one after another; see ``fl_sim/executors/lockstep.py`` for how.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.progress import Progress
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim.engines.choose import Choice
from fl_sim.executors.base import Executor
from fl_sim.executors.lockstep import Lockstep
from fl_sim.kernels.precision import prepare

Done = tuple[Summary, BaseException | None]


def run_together(configs: Sequence[Config], axes: str, quiet: bool) -> Iterable[Done]:
    """(summary, error) of each run. A model that vmap cannot take runs one run after another, and says why."""
    first = build(configs[0])
    learner, config = first.learner, configs[0]
    if first.engine.name != "vmap":
        print(f"note: one run after another, not as one batch: {first.engine.reason}", file=sys.stderr)
        return (execute(build(config), quiet) for config in configs)
    prepare(config.device, config.threads, config.precision)
    keys = [part.partition("=")[0].strip() for part in axes.split(";")]
    reason = f"one of {len(configs)} runs of a batch: vmap_over {axes}"

    def body(number: int) -> Callable[[Executor], Done]:
        def run(executor: Executor) -> Done:
            setup = replace(build(configs[number], workers=executor), engine=Choice("vmap", reason))
            shown: list[Any] = (
                [Progress(config, f"{len(configs)} runs of {config.strategy.name}")]
                if number == 0 and not quiet
                else []
            )
            return execute(setup, True, shown)

        return run

    done: list[Done] = Lockstep(learner, keys, config.chunk).run([body(number) for number in range(len(configs))])
    return done
