"""How long arms take to an accuracy in virtual time: candidates tuned on validation samples, then several seeds."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.studies.study_runs import Command, check_numbers, logs_of, seeded
from fl_sim.logs.reader import RunLog

TRIAL_SEED = 100
"""Seed of trials: none of those whose results are reported."""
DONE = ("completed", "stopped", "failed")
"""How a run ends that is not made again; ``stopped`` by its virtual time."""
LATE = 0.8
"""Accuracies at the end are means over what was evaluated after this share of the time."""


@dataclass(frozen=True)
class TimedArm:
    """An algorithm, and the numbers among which validation samples choose."""

    name: str
    flags: str
    """Flags of its own, separated by blanks."""
    candidates: Sequence[str]
    """Flags of each choice of numbers."""


@dataclass(frozen=True)
class TimeStudy:
    """What is run. A seed is that of run, partition and devices, so that arms share all three."""

    name: str
    """Name of the module, and of the files in ``experiments/results``."""
    explanation: str
    """Paragraphs on top of the page."""
    common: str
    """Flags of all runs, separated by blanks."""
    conditions: dict[str, str]
    """Title of a condition -> its flags, separated by blanks."""
    arms: Sequence[TimedArm]
    """The first is the one that others are compared with."""
    targets: Sequence[float]
    """Accuracies to be reached."""
    apart: Sequence[int] = ()
    """Classes whose accuracy is reported apart."""

    def cells(self) -> Iterator[tuple[str, TimedArm]]:
        """(condition, arm) in the order in which they run."""
        for condition in self.conditions:
            for arm in self.arms:
                yield condition, arm

    def place(self, out: Path, condition: str, arm: TimedArm, candidate: str) -> Path:
        """The folder of the runs of an arm with these numbers."""
        numbers = re.sub(r"--[\w.]+\.", "", candidate)
        parts = (re.sub(r"[^\w.]+", "-", part).strip("-") for part in (condition, arm.name, numbers or "only"))
        return out.joinpath(*parts)

    def words(self, condition: str, arm: TimedArm, candidate: str, more: Sequence[str]) -> list[str]:
        """The flags of a run without its seed; ``more`` replaces the study's own."""
        own = " ".join((self.common, self.conditions[condition], arm.flags, candidate)).split()
        pairs = zip(own[::2], own[1::2], strict=True)
        return [word for pair in pairs if pair[0] not in more for word in pair] + list(more)


def with_seed(seed: int) -> list[str]:
    """The flags by which a seed is that of run, partition and devices."""
    return [*seeded(seed), "--profile.seed", str(seed)]


def made(place: Path) -> RunLog | None:
    """The newest run in a folder that has ended; None where there is none."""
    found = logs_of(place, *DONE)
    return found[-1] if found else None


def run_once(run: Command, place: Path, words: Sequence[str]) -> int:
    """Make a run in ``place``, unless it holds one; returns the exit code, 0 also for a run that failed."""
    if (log := made(place)) is not None:
        check_numbers(log, words)
        return 0
    code = run([*words, "--out", str(place), "--quiet"])
    return 0 if made(place) is not None and code == 1 else code


def run_all(study: TimeStudy, run: Command, out: Path, seeds: Sequence[int], more: Sequence[str]) -> int:
    """Make the missing trials, then the missing runs of the numbers that they choose; returns the first bad code."""
    for condition, arm in study.cells():
        for candidate in arm.candidates if len(arm.candidates) > 1 else ():
            words = [*study.words(condition, arm, candidate, more), *with_seed(TRIAL_SEED)]
            if code := run_once(run, study.place(out, condition, arm, candidate) / "trial", words):
                return code
    for seed in seeds:
        for condition, arm in study.cells():
            for candidate in dict.fromkeys(chosen(study, out, condition, arm, target) for target in study.targets):
                place = study.place(out, condition, arm, candidate) / f"seed-{seed}"
                if code := run_once(run, place, [*study.words(condition, arm, candidate, more), *with_seed(seed)]):
                    return code
    return 0


def chosen(study: TimeStudy, out: Path, condition: str, arm: TimedArm, target: float) -> str:
    """The candidate that reaches the target first on validation samples; where none does, the most accurate one.

    Raises ValueError where a trial has not been made.
    """
    if len(arm.candidates) == 1:
        return arm.candidates[0]
    worth = {}
    for candidate in arm.candidates:
        if (log := made(study.place(out, condition, arm, candidate) / "trial")) is None:
            raise ValueError(f"out = {str(out)!r}: the trial of {arm.name} {candidate} has not been made")
        worth[candidate] = time_to(log, target, "val_accuracy")[0], -at_end(log.rounds, "val_accuracy")
    return min(worth, key=lambda candidate: worth[candidate])


def time_to(log: RunLog, target: float, column: str = "accuracy") -> tuple[float, float]:
    """(virtual seconds, megabytes to and from clients) at the first evaluation that reaches an accuracy; or infinite.

    A run that failed reaches none.
    """
    rounds = log.rounds
    reached = rounds[(rounds[column] >= target) & (rounds["virtual_time"] > 0)]
    if reached.empty or log.summary.get("status") == "failed":
        return math.inf, math.inf
    return float(reached["virtual_time"].iloc[0]), float(megabytes(rounds).loc[reached.index[0]])


def megabytes(rounds: pd.DataFrame) -> "pd.Series[float]":
    """Megabytes of models to and from clients since the beginning, by row of the rounds."""
    return (rounds["bytes_down"].fillna(0) + rounds["bytes_up"].fillna(0)).cumsum() / 1e6


def at_end(rounds: pd.DataFrame, column: str) -> float:
    """The mean of a column over the evaluations of the last part (``LATE``) of the time; NaN without one."""
    late = rounds[rounds["virtual_time"] >= LATE * rounds["virtual_time"].max()][column].dropna()
    return float(late.astype(float).mean()) if len(late) else math.nan


def of_classes(rounds: pd.DataFrame, wanted: Sequence[int], inside: bool) -> "pd.Series[float]":
    """The mean accuracy of the classes ``wanted``, or of all others, by row of the rounds (NaN where not evaluated)."""

    def mean(values: object) -> float:
        if not isinstance(values, list):
            return math.nan
        return float(np.mean([x for k, x in enumerate(values) if (k in wanted) == inside and x is not None]))

    return rounds["class_accuracy"].map(mean).astype(float)


def share_by_speed(log: RunLog) -> float:
    """The share of the launches whose work was used that the slowest class of devices has."""
    used = log.clients[(log.clients["phase"] == "train") & (log.clients["status"] == "completed")]
    return float((used["speed_class"] == used["speed_class"].max()).mean())


def outcomes(study: TimeStudy, out: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """A line a target and reported run that is there: its numbers, time, megabytes, and accuracies at the end."""
    rows, known = [], dict[Path, dict[str, object]]()
    for target in study.targets:
        for condition, arm in study.cells():
            candidate = chosen(study, out, condition, arm, target)
            for seed in seeds:
                place = study.place(out, condition, arm, candidate) / f"seed-{seed}"
                if (log := made(place)) is None:
                    continue
                if place not in known:
                    known[place] = _end(study, log)
                seconds, size = time_to(log, target)
                facts = {"condition": condition, "target": target, "arm": arm.name, "numbers": candidate, "seed": seed}
                rows.append({**facts, "virtual_time": seconds, "mb": size, **known[place]})
    return pd.DataFrame(rows)


def _end(study: TimeStudy, log: RunLog) -> dict[str, object]:
    """What a run is reported by besides its times."""
    rounds = log.rounds
    found: dict[str, object] = {"accuracy": at_end(rounds, "accuracy")}
    if study.apart and "class_accuracy" in rounds:
        for name, inside in (("apart", True), ("others", False)):
            found[name] = at_end(rounds.assign(own=of_classes(rounds, study.apart, inside)), "own")
    staleness = log.summary.get("staleness")
    found |= {"slow_share": share_by_speed(log), "staleness": math.nan if staleness is None else staleness}
    return {**found, "server_steps": int(rounds["round"].max()), "status": log.summary["status"]}
