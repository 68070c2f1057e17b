"""A study of several algorithms (arms) under several conditions: a learning rate tuned for each, then several seeds."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from experiments.studies.study_runs import (
    Command,
    Trials,
    at_best,
    chosen,
    late,
    run_once,
    run_trials,
    scores,
    seeded,
    trial,
    tried,
)
from fl_sim.logs.reader import RunLog


@dataclass(frozen=True)
class Arm:
    """An algorithm with its numbers."""

    name: str
    flags: str
    """Flags of its own, separated by blanks."""
    group: str = ""
    """Arms of one group are compared with each other."""
    column: str = ""
    """The column of rounds.jsonl by which this arm is tuned and compared; empty: the study's own."""


@dataclass(frozen=True)
class Study:
    """What is run, and how it is shown. A seed is that of run and partition, so that arms of a group share both."""

    name: str
    """Name of the module and of the files in ``experiments/results``."""
    explanation: str
    """Paragraphs on top of the page: what is compared, and what was reduced."""
    common: Sequence[str]
    """Flags of all runs."""
    conditions: dict[str, str]
    """Title of a condition -> its flags, separated by blanks."""
    arms: Sequence[Arm]
    baselines: Sequence[str]
    """Arms with which every other arm of their group is compared."""
    trials: Trials
    tuned: str
    """What was tuned on what."""
    columns: dict[str, str]
    """Columns of rounds.jsonl that are reported -> their titles; arms are compared by the first."""
    chance: float
    """The accuracy that a failed run counts as."""
    also: Sequence[str] = ()
    """Those of ``columns`` by which all arms are compared too, whatever columns they name."""
    package: str = "experiments.studies"
    """Where the module is."""
    axis: str = "round"
    """The curves are drawn over this: ``round``, ``steps``, those that a client of a round has taken on average, or
    ``mb_up``, what clients have sent."""
    best_by: str = ""
    """The column of a validation set by which a run's round is chosen that is reported; empty: the last ones."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Arm -> how much less than the first baseline it may have; judged by a one-sided bound of 95 %."""

    @property
    def module(self) -> str:
        """What follows ``python -m``."""
        return f"{self.package}.{self.name}"

    @property
    def value(self) -> str:
        """The column by which arms are compared, unless they name their own."""
        return next(iter(self.columns))

    def trials_of(self, arm: Arm) -> Trials:
        """How the rate of an arm is chosen."""
        return replace(self.trials, column=arm.column or self.trials.column)

    def cells(self) -> Iterator[tuple[str, str, list[Arm]]]:
        """(group, condition, arms) in the order in which they run."""
        for group in dict.fromkeys(arm.group for arm in self.arms):
            for condition in self.conditions:
                yield group, condition, [arm for arm in self.arms if arm.group == group]

    def place(self, out: Path, condition: str, arm: Arm) -> Path:
        """The folder of an arm's runs."""
        names = (re.sub(r"[^\w.]+", "-", part).strip("-") for part in (condition, arm.group, arm.name) if part)
        return out.joinpath(*names)

    def flags(self, condition: str, arm: Arm, more: Sequence[str]) -> list[str]:
        """The flags of an arm's runs, without rate and seed; ``more`` replaces the study's own."""
        own = [*self.common, *self.conditions[condition].split(), *arm.flags.split()]
        pairs = zip(own[::2], own[1::2], strict=True)
        return [word for pair in pairs if pair[0] not in more for word in pair] + list(more)

    def run_seed(self, run: Command, out: Path, condition: str, arm: Arm, seed: int, more: Sequence[str]) -> int:
        """Make one reported run at the arm's chosen rate, unless it is there; all trials must have been made."""
        folder = self.place(out, condition, arm)
        rate = chosen(folder, self.trials_of(arm))
        assert rate is not None
        words = [*self.flags(condition, arm, more), "--local.lr", f"{rate:g}", *seeded(seed)]
        return run_once(run, folder / f"seed-{seed}", words)

    def run_trials(self, run: Command, out: Path, condition: str, arm: Arm, more: Sequence[str]) -> int:
        """Make the arm's missing trials."""
        return run_trials(run, self.place(out, condition, arm), self.flags(condition, arm, more), self.trials_of(arm))

    def logs(self, out: Path, condition: str, arm: Arm) -> list[RunLog]:
        """The logs of an arm's reported runs, completed or failed."""
        folders = sorted(self.place(out, condition, arm).glob("seed-*"))
        return [log for log in map(tried, folders) if log is not None]


SENT = ["bytes_up", "bytes_down"]
"""What clients send and get."""
SENT_ABOVE = ["edge_bytes_up", "edge_bytes_down"]
"""What edges send to the server and get from it; there is none where clients do so themselves."""


def outcomes(study: Study, out: Path) -> tuple[pd.DataFrame, dict[tuple[str, str, str], dict[float, float]]]:
    """(a line a reported run, (condition, group, arm) -> rate -> its trial's score)."""
    rows, tuned = [], {}
    for group, condition, arms in study.cells():
        for arm in arms:
            if found := scores(study.place(out, condition, arm), study.trials_of(arm)):
                tuned[condition, group, arm.name] = found
            facts = {"condition": condition, "group": group, "arm": arm.name}
            rows += [{**facts, **numbers(study, arm, log)} for log in study.logs(out, condition, arm)]
    return pd.DataFrame(rows), tuned


def numbers(study: Study, arm: Arm, log: RunLog) -> dict[str, object]:
    """What a run is reported by: ``compared``, by which its arm is compared, and the study's columns."""
    sums = log.rounds.reindex(columns=["steps", "seconds", *SENT, *SENT_ABOVE]).sum()
    sent, above = sums[SENT].sum(), sums[SENT_ABOVE].sum()

    def last(column: str) -> float:
        failed = log.summary["status"] == "failed" and "accuracy" in column
        if study.best_by and not failed and column in log.rounds:
            return at_best(log, study.best_by, column)
        return study.chance if failed else late(log, column, study.trials.last)

    return {
        "seed": log.config["seed"],
        "lr": log.config["local"]["lr"],
        "status": log.summary["status"],
        "compared": last(arm.column or study.value),
        **{name: last(name) for name in study.columns},
        "steps": int(sums["steps"]),
        "mb": sent / 1e6,
        "server_mb": (above or sent) / 1e6,
        "seconds": round(float(sums["seconds"]), 1),
        "digest": log.summary.get("digest"),
    }


def every_log(study: Study, out: Path) -> list[RunLog]:
    """The logs of trials and reported runs. Raises ValueError where there is none."""
    found: list[RunLog] = []
    for _, condition, arms in study.cells():
        for arm in arms:
            place = study.place(out, condition, arm)
            made = [tried(trial(place, rate)) for rate in study.trials.rates]
            found += [*filter(None, made), *study.logs(out, condition, arm)]
    if not found:
        raise ValueError(f"out = {str(out)!r}: holds no run of this study")
    return found
