"""``python -m experiments.run [RECIPE] [--key value ...]``, and ``run(...)`` for notebooks. No paper.

Exit codes: 0 only when every round did what it was asked; 1 for a failed run; 2 for bad input; 130 when interrupted.
"""

import json
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients.shares import as_partition
from experiments.config.command_line import Invocation, parse
from experiments.config.recipe_files import make
from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.plan import describe, predict
from experiments.runs.resume import resume
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from experiments.runs.trial import ClientFailed
from fl_sim import Callback, RoundFailed, from_arrays, load
from fl_sim.errors import ConfigError
from fl_sim.learning.measures import SampleFunction
from fl_sim.logs.reader import RunLog
from fl_sim.tree import Tree

__all__ = ["Outcome", "from_arrays", "main", "run"]


@dataclass(frozen=True)
class Outcome:
    """What ``run`` hands back."""

    summary: Summary
    """The fields of summary.json."""
    model: Tree
    """The final global model."""
    log: RunLog
    """The round log, read: ``log.rounds`` and ``log.clients`` are pandas frames."""


def run(
    *,
    recipe: str | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, SampleFunction] | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Outcome:
    """One run from Python: ``run(strategy=Mine(), model=my_module, task=from_arrays(x, y, clients=ids), rounds=5)``.

    ``task``, ``partition``, ``model`` and ``strategy`` are names, or objects passed directly; other settings are those
    of the command line: ``cohort=10, local={"lr": 0.1}``, or dotted keys in a dict. A task with natural clients is
    partitioned by these unless ``partition`` says otherwise. ``metrics`` are further numbers a sample, reported as
    means. Raises ConfigError (a ValueError) for bad input, before any work, and RoundFailed for a failed run.
    """
    task = settings.get("task")
    if getattr(task, "clients", None) is not None:
        settings.setdefault("partition", "natural")
    if any(not isinstance(callback, Callback) for callback in callbacks):
        raise ConfigError(f"callbacks = {list(callbacks)!r}: each must be an instance of a subclass of fl_sim.Callback")
    if isinstance(settings.get("partition"), (list, tuple)):
        settings["partition"] = as_partition(
            settings["partition"], "index arrays", 2**62
        )  # the task, when it is made, sets the bound
    config = make(recipe, **settings)
    if config.engine == "flower":
        raise ConfigError(
            "engine = 'flower': objects from Python do not travel to Flower's actors; use the command line"
        )
    setup = build(config, metrics)
    summary, error = execute(setup, quiet, callbacks)
    if error is not None:
        raise error
    log = load(summary["run_dir"])
    return Outcome(summary, log.model(), log)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        asked = parse(sys.argv[1:] if argv is None else argv)
        if asked.app:
            from experiments.apps import run_app  # here, because only few calls want it

            if asked.dry_run:
                return show(
                    [run_app.describe(asked.app, config, asked.said, asked.app_config) for config in asked.configs],
                    asked.json,
                )
            summaries = [
                run_app.run_app(asked.app, config, asked.quiet, asked.said, asked.app_config)
                for config in asked.configs
            ]
            return report(summaries, asked.quiet, asked.json)
        if asked.dry_run:
            return show([planned(config) for config in asked.configs], asked.json)
        for config in asked.configs[1:]:
            build(config)  # what is wrong with a later run is said before the first one starts
        return run_all(asked)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_all(asked: Invocation) -> int:
    """One run after another, or all as one batch; a failed one does not stop the others. Returns the exit code."""
    summaries = []
    for summary, error in runs_of(asked):
        summaries.append(summary)
        if isinstance(error, KeyboardInterrupt):
            print(f"interrupted; to go on: python -m experiments.run --resume {summary['run_dir']}", file=sys.stderr)
            report(summaries, asked.quiet, asked.json)
            return 130
        if error is not None:
            explain(error, summary)
    return report(summaries, asked.quiet, asked.json)


def runs_of(asked: Invocation) -> Iterable[tuple[Summary, BaseException | None]]:
    """One run after another; with --vmap_over as one batch; of engine flower through Flower's own simulation."""
    if asked.vmap_over:
        from experiments.runs.lockstep import run_together  # these two here, because they stand on this module

        return run_together(asked.configs, asked.vmap_over, asked.quiet)
    if asked.configs[0].engine == "flower":
        from experiments.deploy.flower_simulation import run_through_flower
        from experiments.deploy.server_app import deployable

        return run_through_flower([deployable(replace(config, engine="loop")) for config in asked.configs])
    if asked.resume:
        return iter([go_on(Path(asked.resume), asked.configs[0], asked.quiet)])
    return (execute(build(config), asked.quiet) for config in asked.configs)


def go_on(folder: Path, config: Config, quiet: bool) -> tuple[Summary, BaseException | None]:
    """The rest of a run; the stored summary where nothing is left to do."""
    found = resume(folder, config)
    if found.finished is not None:
        return dict(found.finished), None
    return execute(build(config), quiet, resumed=found)


def explain(error: BaseException, summary: Summary) -> None:
    """Say on stderr why a run failed, and where its last good model is."""
    if isinstance(error, RoundFailed):
        print(f"run failed: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    print(f"the last good model (round {summary['rounds']}) and the logs are in {summary['run_dir']}", file=sys.stderr)
    print(f"to go on, once the cause is gone: python -m experiments.run --resume {summary['run_dir']}", file=sys.stderr)


def planned(config: Config) -> dict[str, Any]:
    """What a run would do, and take."""
    setup = build(config)
    try:
        predicted, _ = predict(setup)
    except ClientFailed as error:
        predicted = {"fails": str(error)}
    return {**describe(setup), **predicted}


def show(plans: Sequence[dict[str, Any]], as_json: bool) -> int:
    """Print what would run, and stop."""
    if as_json:
        print(json.dumps(plans[0] if len(plans) == 1 else {"runs": plans, "status": "planned"}))
    else:
        print("\n\n".join("\n".join(f"{key:24} {value}" for key, value in plan.items()) for plan in plans))
    return 0


def report(summaries: Sequence[Summary], quiet: bool, as_json: bool) -> int:
    """Table and picture for people, JSON for programs; the exit code."""
    if not quiet:
        from experiments.analysis.save_comparison import (
            save_comparison,
        )  # here, because pandas and matplotlib load slowly

        table, picture = save_comparison([Path(s["run_dir"]) for s in summaries])
        print(f"\n{table}\n\ncurves: {picture}")
    failed = any(s["status"] == "failed" for s in summaries)
    if as_json:
        several = {"runs": list(summaries), "status": "failed" if failed else "completed"}
        print(json.dumps(several if len(summaries) > 1 else summaries[0], allow_nan=False))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
