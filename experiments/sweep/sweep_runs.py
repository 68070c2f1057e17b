"""A sweep from its plan to its table: which runs are not over yet, who makes them, what is written.

Everything that a sweep knows is in its folder: a call that is repeated, after a kill at any moment too, makes what is
missing and reads the rest.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.text_table import format_table
from experiments.sweep.planned_trials import gridded, search_of, searched
from experiments.sweep.sweep_plan import Plan, check
from experiments.sweep.trial_batches import Job, batches, make_batch
from experiments.sweep.trial_runs import check_same, made, make_run
from experiments.sweep.trial_table import (
    DEFAULT_COLUMNS,
    Trial,
    changes_validation,
    column_of,
    logs_of,
    result_of,
    table,
)
from experiments.sweep.trial_workers import TrialWorkers
from fl_sim.logs.folder import lock
from fl_sim.logs.writer import plain

SWEEP, LOCK = "sweep.json", "sweep.lock"
"""File with the outcome of a sweep; file by which two calls never work in one folder at once."""


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
    seeds = max(len(trial.configs) for trial in known)
    total, left = seeds * (plan.trials or len(known)), len(jobs)
    asked = seeds * len(known)  # a search asks for the other trials later

    def over(done: Sequence[Job]) -> None:
        nonlocal left
        for job in done:
            left -= 1
            tell(f"[{asked - left}/{total}] {line_of(job, plan)}")

    if plan.prune:
        search = search_of(plan)
        results = [result_of(trial, plan.folder, plan.choose_by) for trial in known[: -len(trials)]]
        for number, job in enumerate(jobs):
            columns = [plan.choose_by] if plan.choose_by else DEFAULT_COLUMNS
            make_run(job.config, job.place, [search.pruning(len(results), results, columns)])
            if made(job.place).state == "pruned":
                left -= len(jobs) - number - 1  # its other seeds are not made
                return over([job])
            over([job])
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
