"""``python -m experiments.run [RECIPE] [--key value ...]``, and ``run(...)`` for notebooks.

Exit codes: 0 only if every round of every run completed; 1 for a failed run, and for a disk that is full; 2 for bad
input; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from torch import nn

from clients.shares import as_partition
from experiments.command_ends import ended, exit_code, is_full, reason
from experiments.config.command_line import Invocation, parse
from experiments.config.recipe_files import make_each
from experiments.config.schema import Config
from experiments.config.values import has_several_seeds
from experiments.runs.data import take_task
from experiments.runs.execute import RESUME, execute
from experiments.runs.plan import check_used, describe, predict
from experiments.runs.resume import ready, resume
from experiments.runs.setup import Setup, build
from experiments.runs.summary import Summary
from experiments.runs.trial import ClientFailed
from experiments.trackers.asked import asked
from fl_sim import Callback, RoundFailed, from_arrays
from fl_sim.errors import ConfigError
from fl_sim.learning.measures import SampleFunction
from fl_sim.learning.sets.set_checks import names_and_own
from fl_sim.logs.reader import RunLog, read_back
from fl_sim.tree import Tree

__all__ = ["Outcome", "from_arrays", "main", "run"]


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of ``run``. ``print`` shows it in a few lines: how the run ended, its last numbers, its folder."""

    summary: Summary
    """The fields of summary.json."""
    model: Tree
    """The final global model: the ``state_dict`` of the network that was trained, on the CPU."""
    log: RunLog
    """The round log: ``log.rounds`` and ``log.clients`` are pandas frames; the latter is read when first asked for."""

    def __repr__(self) -> str:
        s = self.summary
        numbers = [f"{k} {s[k]:.4f}" for k in ("accuracy", "val_accuracy", "loss") if s.get(k) is not None]
        lines = [f"{s['status']}: {s['rounds']} rounds in {s['seconds']:.1f} s, seed {s['seed']}", ", ".join(numbers)]
        lines += [f"{k}: {s[k]}" for k in ("stopped", "not_finite", "model_notes", "digest", "run_dir") if s.get(k)]
        return "\n  ".join(["Outcome", *filter(None, lines)])


@overload
def run(
    *,
    recipe: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, SampleFunction] | None = None,
    set_metrics: str | Sequence[str] | Mapping[str, object] = "",
    quiet: bool = True,
    trust_pickle: bool = False,
    seed: int | np.integer[Any] = 0,
    **settings: object,
) -> Outcome: ...


@overload
def run(
    *,
    seed: Sequence[int] | np.ndarray,
    recipe: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, SampleFunction] | None = None,
    set_metrics: str | Sequence[str] | Mapping[str, object] = "",
    quiet: bool = True,
    trust_pickle: bool = False,
    **settings: object,
) -> list[Outcome]: ...


def run(
    *,
    recipe: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, SampleFunction] | None = None,
    set_metrics: str | Sequence[str] | Mapping[str, object] = "",
    quiet: bool = True,
    trust_pickle: bool = False,
    **settings: object,
) -> Outcome | list[Outcome]:
    """One run from Python: ``run(strategy=Mine(), model=my_module, task=from_arrays(x, y, clients=ids), rounds=5)``.

    ``task``, ``partition``, ``model`` and ``strategy`` are names, or objects passed directly; other settings are those
    of the command line: ``cohort=10, local={"lr": 0.1}``, or dotted keys in a dict. Paths are taken as text, and
    numbers of NumPy with the value that they have (``np.float32(0.1)`` is 0.10000000149011612). A torch Dataset, or a
    list of samples, may be the task too: it becomes one by ``from_dataset``, with its defaults. A task with natural
    clients is partitioned by these unless ``partition`` is given. ``metrics`` maps names to functions that give one
    number for each sample; the means of these numbers are reported.

    ``seed`` is a number, or a list of numbers: then one run follows another, with the same callbacks, and the result is
    the list of their Outcomes (the first that fails raises; those before it stay in their folders). A module passed as
    ``model`` is copied; every seed starts from its weights.

    ``set_metrics`` are metrics of a whole set, such as F1: names as on the command line ("f1,auroc", or a list), or
    ``{name: given}``, where ``given`` is

    - a function of all outputs (N, ...) and targets (N, ...) of a set, which are kept until its end (at most 256 MiB);
    - a torchmetrics object, or any with ``reset``, ``update(outputs, targets)`` and ``compute``: a copy is updated
      block by block, in block order;
    - a name as on the command line, as text.

    They get copies on the CPU, outputs as the model gives them (no softmax); where the task has an ``ignore_index``,
    one row of outputs for each label that counts. They give a number or a tensor with one or two axes, and None or NaN
    where they are undefined, which is logged as null. They are computed on the central test and validation sets
    (columns ``NAME`` and ``val_NAME`` of the rounds), and in a personal evaluation on each client's held-out samples
    (``NAME_before`` and ``NAME`` of the clients; the rounds hold no mean of these). As with ``metrics``, a run that is
    resumed from its folder has only the names that its config holds, and says which it goes on without: functions and
    objects are not stored.

    ``trust_pickle``: with ``fork="RUN@N"``, read a pickle that this user's key did not sign, which can run any code.
    Raises ConfigError (a ValueError) for bad input, before any work, and RoundFailed for a failed run.
    """
    take_task(settings)
    if not hasattr(callbacks, "__iter__") or any(not isinstance(callback, Callback) for callback in callbacks):
        raise ConfigError(
            f"callbacks = {callbacks!r}: must be a list, and each of it be an instance of a subclass of fl_sim.Callback"
        )
    if isinstance(settings.get("partition"), (list, tuple)):
        # the bound on indices is checked again once the task is built
        settings["partition"] = as_partition(settings["partition"], "index arrays", 2**62)
    names, own = names_and_own(set_metrics)
    if names:
        settings["set_metrics"] = names
    configs = make_each(None if recipe is None else os.fspath(recipe), **settings)
    outcomes = [_outcome(build(c, metrics, set_metrics=own), quiet, callbacks, trust_pickle) for c in checked(configs)]
    return outcomes if has_several_seeds(settings.get("seed", 0)) else outcomes[0]


def checked(configs: Sequence[Config]) -> Sequence[Config]:
    """``configs``; warns where runs that differ in their seeds start from the weights of one module.

    Raises ConfigError for an engine that takes no objects from Python.
    """
    if configs[0].engine == "flower":
        why = "objects from Python do not travel to Flower's actors"
        raise ConfigError(f"engine = 'flower': {why}; use the command line")
    if len(configs) > 1 and isinstance(configs[0].model.component, nn.Module):
        what = "all seeds start from the weights of the module that was passed"
        warnings.warn(f"{what}; pass a function that makes it for other weights with each seed", stacklevel=3)
    return configs


def _outcome(setup: Setup, quiet: bool, callbacks: Sequence[Callback], trust_pickle: bool) -> Outcome:
    """Run to the end. Raises the error of a failed run."""
    check_used(setup)
    summary, error = execute(setup, quiet, callbacks, trust_pickle=trust_pickle)
    if error is not None:
        raise error
    log = read_back(summary["run_dir"], checked=False)
    return Outcome(summary, log.model(), log)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        call = parse(sys.argv[1:] if argv is None else argv)
        if call.app:
            return run_apps(call)
        if call.dry_run:
            if call.resume:
                resume(Path(call.resume), call.configs[0], call.trust_pickle)  # its errors
            return show([planned(config, call.trust_pickle) for config in call.configs], call.json)
        checked_later = not call.vmap_over and call.configs[0].engine != "flower"  # the first run, as it starts
        for config in call.configs[checked_later:] if not call.resume else ():
            ready(config, call.trust_pickle)  # an error of a later run is reported before the first one starts
        return run_all(call)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full(error) else 2


def run_apps(call: Invocation) -> int:
    """Run a Flower app once for each seed, or print the plans. Returns the exit code."""
    from experiments.apps import run_app  # imported here, because few calls need it

    how = call.explicit, call.app_config, call.run_config
    if call.dry_run:
        plans = [run_app.describe(call.app, config, *how) for config in call.configs]
        return show(plans, call.json)
    summaries = [run_app.run_app(call.app, config, *how, call.quiet) for config in call.configs]
    return report(summaries, call.quiet, call.json)


def run_all(call: Invocation) -> int:
    """One run after another, or all as one batch; a failed run does not stop the others. Returns the exit code."""
    summaries = []
    for summary, error in runs_of(call):
        summaries.append(summary)
        if isinstance(error, KeyboardInterrupt):
            with suppress(OSError):  # a terminal that was closed cannot be written
                print(f"{reason(error)}; to go on: {RESUME} {summary['run_dir']}", file=sys.stderr)
                report(summaries, call.quiet, call.json)
            return exit_code(error)
        if error is not None:
            explain(error, summary)
    return report(summaries, call.quiet, call.json)


def runs_of(call: Invocation) -> Iterable[tuple[Summary, BaseException | None]]:
    """Run what a call requests, one run after another, and yield (summary, error or None) of each.

    With ``--vmap_over`` the runs are one batch; with the engine ``flower`` they run in Flower's own simulation.
    """
    callbacks = partial(asked, call.track, call.callback)
    if call.resume:
        return iter([run_on(Path(call.resume), call.configs[0], call.quiet, call.trust_pickle, callbacks())])
    if call.vmap_over:
        from experiments.runs.lockstep import run_together  # imported here, as those below, because few calls need it

        return run_together(call.configs, call.vmap_over, call.quiet, call.trust_pickle, callbacks)
    if call.configs[0].engine == "flower":
        from experiments.deploy.flower_simulation import run_through_flower
        from experiments.deploy.server_app import deployable

        configs = [deployable(replace(config, engine="loop"), simulated=True) for config in call.configs]
        return run_through_flower(configs, trust_pickle=call.trust_pickle)
    start = partial(execute, quiet=call.quiet, trust_pickle=call.trust_pickle)
    return (start(ready(config, call.trust_pickle), callbacks=callbacks()) for config in call.configs)


def run_on(
    folder: Path, config: Config, quiet: bool, trust_pickle: bool, callbacks: Sequence[Callback] = ()
) -> tuple[Summary, BaseException | None]:
    """Run the remaining rounds of the run in ``folder``; returns its stored summary where none remains."""
    resumed = resume(folder, config, trust_pickle)
    if resumed.finished is not None:
        return dict(resumed.finished), None
    return execute(build(config), quiet, callbacks, resumed)


def explain(error: BaseException, summary: Summary) -> None:
    """Print on stderr why a run failed, and where its last good model is."""
    if isinstance(error, RoundFailed) or is_full(error):
        print(f"run failed: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    print(f"the last good model (round {summary['rounds']}) and the logs are in {summary['run_dir']}", file=sys.stderr)
    print(f"to go on, once the cause is gone: {RESUME} {summary['run_dir']}", file=sys.stderr)


def planned(config: Config, trust_pickle: bool) -> dict[str, object]:
    """The facts of a run that is not started, and the time and memory that it would take."""
    setup = ready(config, trust_pickle)
    try:
        predicted, _ = predict(setup)
    except ClientFailed as error:
        predicted = {"fails": str(error)}
    return {**describe(setup), **predicted}


def show(plans: Sequence[dict[str, object]], as_json: bool) -> int:
    """Print the plans of runs that are not started. Returns the exit code, 0."""
    if as_json:
        print(json.dumps(plans[0] if len(plans) == 1 else {"runs": plans, "status": "planned"}))
    else:
        print("\n\n".join("\n".join(f"{key:24} {value}" for key, value in plan.items()) for plan in plans))
    return 0


def report(summaries: Sequence[Summary], quiet: bool, as_json: bool) -> int:
    """Print a table and save a picture unless ``quiet``; print JSON if requested. Returns the exit code."""
    if not quiet:
        # imported here, because pandas and matplotlib load slowly
        from experiments.analysis.save_comparison import save_comparison

        table, saved = save_comparison([Path(s["run_dir"]) for s in summaries])
        print(f"\n{table}\n\n{saved}")
    failed = any(s["status"] == "failed" for s in summaries)
    if as_json:
        several = {"runs": list(summaries), "status": "failed" if failed else "completed"}
        print(json.dumps(several if len(summaries) > 1 else summaries[0], allow_nan=False))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(ended(main))
