"""A sweep from its plan to its table: which trials there are, which are not over yet, who makes them, what is written.

Everything that a sweep knows is in its folder: a call that is repeated, after a kill at any moment too, makes what is
missing and reads the rest.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.frames import FALLS, RISES
from experiments.analysis.text_table import format_table
from experiments.config.choices import PACKAGES
from experiments.config.schema import Config
from experiments.runs.resume import ready
from experiments.sweep.axis_values import Axis, Point, grid
from experiments.sweep.search import Kind, Result, Search, has_direction
from experiments.sweep.trial_batches import Job, batches, make_batch
from experiments.sweep.trial_runs import check_same, failed, made, make_run
from experiments.sweep.trial_table import (
    DEFAULT_COLUMNS,
    Trial,
    changes_validation,
    column_of,
    logs_of,
    result_of,
    table,
)
from experiments.sweep.trial_workers import TrialWorkers, check_sendable
from fl_sim.errors import ConfigError
from fl_sim.logs.folder import lock
from fl_sim.logs.writer import plain

SWEEP, LOCK = "sweep.json", "sweep.lock"
"""File with the outcome of a sweep; file by which two calls never work in one folder at once."""


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do."""

    axes: Sequence[Axis]
    configs_of: Callable[[Point], Sequence[Config]]
    """The configs of a point, one for each seed. Raises ConfigError."""
    folder: Path
    trials: int = 0
    """Trials of a search; 0: the grid of all values."""
    kind: Kind = "tpe"
    search_seed: int = 0
    parallel: int = 1
    """Processes that make runs at the same time."""
    batch: bool = True
    """Whether runs that can train as one batch do."""
    prune: bool = False
    """Whether a search ends runs early whose validation falls behind."""
    choose_by: str = ""
    """The column of the validation samples that chooses; empty: ``val_accuracy``, else ``val_loss``."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    folder: Path
    table: pd.DataFrame
    """One row for each trial: ``experiments.sweep.trial_table.table``."""
    chosen: dict[str, Any] | None
    """The row of the trial that is best on the validation samples; None where there are none."""
    runs: dict[str, list[Path]]
    """Folders of the runs that are over and did not fail, by the name of their trial."""

    @property
    def failed(self) -> int:
        """Trials of which a run failed."""
        return int(self.table["error"].notna().sum())


def run_sweep(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Sweep:
    """Make all runs that are missing; ``tell`` gets a line for each that is over.

    Raises ConfigError before any work for what is wrong, and KeyboardInterrupt where it is interrupted, after the table
    of what is there was written.
    """
    check(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (plan.folder / LOCK).open("ab") as file, ExitStack() as stack:
        lock(file, plan.folder)
        workers = stack.enter_context(TrialWorkers(plan.parallel, plan.folder)) if plan.parallel > 1 else None
        known: list[Trial] = []
        with written(plan, known):
            for trials in searched(plan, known) if plan.trials else [gridded(plan)]:
                known += trials
                make_trials(plan, trials, known, workers, tell)
    return written_as(plan, known)


def check(plan: Plan) -> None:
    """Raise ConfigError for a plan that cannot be followed, or whose folder holds a sweep of other settings."""
    if plan.parallel < 1 or plan.trials < 0:
        raise ConfigError(f"parallel = {plan.parallel}, trials = {plan.trials}: must be at least 1, and at least 0")
    if plan.choose_by and not plan.choose_by.startswith("val_"):
        why = "choices read the validation samples alone, whose columns begin with val_"
        raise ConfigError(f"choose_by = {plan.choose_by!r}: {why}; give one of them, such as {DEFAULT_COLUMNS[0]}")
    if plan.choose_by and not has_direction(plan.choose_by):
        known = f"higher is better of {', '.join(RISES)}, lower of {', '.join(FALLS)}"
        raise ConfigError(
            f"choose_by = {plan.choose_by!r}: its name does not tell whether higher is better ({known})"
            f"; give another column, such as {DEFAULT_COLUMNS[0]}"
        )
    if not plan.trials and plan.prune:
        raise ConfigError("prune = true: a search alone ends runs early; give --trials N too, or leave it out")
    if plan.prune and plan.parallel > 1:
        raise ConfigError(f"prune = true, parallel = {plan.parallel}: each run is compared with those before; give one")
    points = grid(plan.axes) if not plan.trials else corners(plan.axes)
    configs = [config for point in points for config in plan.configs_of(point)]
    names = sorted({config.strategy.name for config in plan.configs_of(points[0])})
    if len(names) > 1:
        what = f"strategy.name = {', '.join(names)}: several strategies are an axis of their own"
        raise ConfigError(f"{what}; give --vary 'strategy={';'.join(names)}'")
    for config in configs:
        if plan.trials and not config.validation:
            why = "a search chooses by the central validation samples, and validation = 0 keeps none"
            raise ConfigError(f"trials = {plan.trials}: {why}; give a share (--validation 0.1)")
    if plan.choose_by and not any(config.validation for config in configs):
        raise ConfigError(f"choose_by = {plan.choose_by!r}: validation = 0 keeps no samples; give --validation 0.1")
    if plan.parallel > 1:
        check_sendable([Job(config, plan.folder) for config in configs])
    moving = [one.key for one in plan.axes if changes_validation(one.key)]
    if plan.trials and moving:
        why = "numbers on different validation samples cannot be compared"
        raise ConfigError(
            f"vary = {moving[0]!r}: {why}, so that a search cannot choose; leave --trials out, or {moving[0]}"
        )
    if not plan.folder.exists() and not plan.trials:
        ready(configs[0])  # what only the data show to be wrong, of the first run at least


def corners(axes: Sequence[Axis]) -> list[Point]:
    """The points at the ends of ranges, and at each value, of one axis at a time."""
    first: Point = {one.key: ends(one)[0] for one in axes}
    return [first, *({**first, one.key: value} for one in axes for value in ends(one)[1:])]


def ends(one: Axis) -> Sequence[object]:
    """The values of an axis, or both ends of its range."""
    return one.values if not one.is_range else [int(x) if one.whole else x for x in (one.low, one.high)]


def gridded(plan: Plan) -> list[Trial]:
    """The trials of a grid, each named by its values."""
    trials = [Trial(name_of(point), point, plan.configs_of(point)) for point in grid(plan.axes)]
    seen: dict[str, Trial] = {}
    for trial in trials:
        objects = [id(getattr(config, kind).component) for config in trial.configs for kind in PACKAGES]
        same = seen.setdefault(repr([objects, [config.to_dict() for config in trial.configs]]), trial)
        if same is not trial:
            raise ConfigError(
                f"vary: {same.point} and {trial.point} are the same runs, and would count as two trials; leave one out"
            )
    return trials


def name_of(point: Point) -> str:
    """The folder of a grid's trial: its values, readable, and a hash that tells any two apart."""
    text = ",".join(f"{key.removesuffix('.name')}={value}" for key, value in point.items())
    exact = hashlib.sha256(json.dumps(point, sort_keys=True, default=str).encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.=,+-]+", "-", text)[:90]
    return f"{readable}-{exact}"


def searched(plan: Plan, known: Sequence[Trial]) -> Iterable[list[Trial]]:
    """The trials of a search, in groups that are asked for together: a group depends on the results of those before.

    ``known``: the trials so far, which the caller extends by each group and makes.
    """
    search = Search(plan.axes, plan.kind, plan.search_seed, plan.folder)
    results: list[Result] = []
    while len(known) < plan.trials:
        results += [result_of(trial, plan.folder, plan.choose_by) for trial in known[len(results) :]]
        left = plan.trials - len(known)
        # random trials read no results; those of TPE read all that were there when their group was asked for
        count = left if plan.kind == "random" and not plan.prune else min(left, plan.parallel)
        points = search.ask(count, results)
        yield [trial_of(plan, len(known) + place, point) for place, point in enumerate(points)]


def trial_of(plan: Plan, number: int, point: Point) -> Trial:
    """A trial of a search; one whose values contradict each other has failed."""
    name = f"trial-{number:04d}"
    try:
        return Trial(name, point, plan.configs_of(point))
    except ConfigError as error:
        failed(plan.folder / name, error)
        return Trial(name, point, ())


def make_trials(
    plan: Plan,
    trials: Sequence[Trial],
    known: Sequence[Trial],
    workers: TrialWorkers | None,
    tell: Callable[[str], None],
) -> None:
    """Make the runs of these trials that are not over."""
    jobs = []
    # a trial that was pruned in one of its runs is over: the others are not made
    left_over = [t for t in trials if not any(one.state == "pruned" for one in t.states(plan.folder))]
    for job in (job for trial in left_over for job in trial.jobs(plan.folder)):
        state = made(job.place)
        if state.folder is not None:
            check_same(state.folder, job.config)
        if not state.is_over:
            jobs.append(job)
    total, left = sum(len(trial.configs) for trial in known), len(jobs)

    def over(done: Sequence[Job]) -> None:
        nonlocal left
        for job in done:
            left -= 1
            tell(f"[{total - left}/{total}] {line_of(job, plan)}")

    if plan.prune:
        search = Search(plan.axes, plan.kind, plan.search_seed, plan.folder)
        results = [result_of(trial, plan.folder, plan.choose_by) for trial in known[: -len(trials)]]
        for job in jobs:
            column = plan.choose_by or DEFAULT_COLUMNS[0]
            make_run(job.config, job.place, [search.pruning(len(results), results, column)])
            over([job])
            if made(job.place).state == "pruned":
                break
        return
    groups = batches(jobs) if plan.batch else [[job] for job in jobs]
    if workers is not None:
        for done in workers.run(groups):
            over(done)
    else:
        for group in groups:
            make_batch(group)
            over(group)


def line_of(job: Job, plan: Plan) -> str:
    """One line about a run that is over."""
    state, name = made(job.place), f"{job.place.parent.name}, {job.place.name}"
    if state.folder is None or state.state == "failed":
        return f"{name}: failed: {state.error.splitlines()[0] if state.error else 'it said nothing'}"
    summary = json.loads((state.folder / "summary.json").read_text(encoding="utf-8"))
    numbers = [f"{k} {summary[k]:.4f}" for k in ("val_accuracy", "accuracy", "loss") if summary.get(k) is not None]
    return f"{name}: {state.state}, {', '.join(numbers)} ({summary['seconds']:.1f} s)"


@contextmanager
def written(plan: Plan, known: Sequence[Trial]) -> Any:
    """Write the table also where the sweep is interrupted."""
    try:
        yield
    except BaseException:
        if known:
            written_as(plan, known, "interrupted")
        raise


def written_as(plan: Plan, known: Sequence[Trial], status: str = "completed") -> Sweep:
    """Write ``table.csv``, ``table.txt`` and ``sweep.json``; returns what was found."""
    frame, best = table(known, plan.folder, plan.choose_by)
    chosen = None if best is None else {str(k): v for k, v in frame.loc[best].to_dict().items()}
    logs = {trial.name: logs_of(trial, plan.folder) for trial in known}
    column = column_of(plan.choose_by, [log for own in logs.values() for log in own])
    found = Sweep(plan.folder, frame, chosen, {name: [log.path for log in own] for name, own in logs.items()})
    frame.to_csv(plan.folder / "table.csv", index=False)
    (plan.folder / "table.txt").write_text(text_of(found) + "\n", encoding="utf-8")
    facts = {"status": status, "trials": len(known), "failed": found.failed, "chosen_by": column or None}
    temporary = plan.folder / f".{SWEEP}.{os.getpid()}"
    temporary.write_text(json.dumps(plain({**facts, "chosen": chosen}), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, plan.folder / SWEEP)
    return found


def text_of(found: Sweep) -> str:
    """The table as text, with what was chosen, and by what."""
    shown = found.table.drop(columns=["error"])
    text = format_table(shown if found.table["trial"].str.startswith("trial-").any() else shown.drop(columns=["trial"]))
    for _, row in found.table[found.table["error"].notna()].iterrows():
        text += f"\nfailed: {row['trial']}: {str(row['error']).strip().splitlines()[-1]}"
    if found.chosen is None and any(changes_validation(str(key)) for key in found.table):
        return text + "\nnothing was chosen: the trials differ in their validation samples"
    if found.chosen is None:
        return text + "\nnothing was chosen: there are no central validation samples (--validation 0.1)"
    return text + f"\nbest on the validation samples: {found.chosen['trial']}"
