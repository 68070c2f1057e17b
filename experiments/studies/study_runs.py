"""Runs of a study in a folder: what it holds already is not run again, so that a study may be interrupted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from experiments.analysis.frames import read
from fl_sim.dotted import flatten
from fl_sim.logs.reader import RunLog

RESULTS = Path(__file__).parents[1] / "results"
"""Folder of published results."""
Command = Callable[[Sequence[str]], int]
"""``experiments.run.main``: flags -> exit code."""
FAILED = 1
"""Exit code of a run that failed: a result too, where the model diverged."""


@dataclass(frozen=True)
class Trials:
    """How the learning rate of an arm is chosen: one run for each rate, with the same seed of run and partition."""

    rates: Sequence[float]
    seed: int
    """None of the seeds whose results are reported."""
    column: str
    """The column of rounds.jsonl by which the best rate is chosen, such as ``val_accuracy``."""
    flags: Sequence[str] = ()
    """Further flags of trials alone."""
    last: int = 2
    """Evaluations whose mean is taken, the last ones of a run."""


def logs_of(place: Path, *statuses: str) -> list[RunLog]:
    """The logs in a folder, which may not exist, whose runs ended with one of these statuses."""
    folders = [file.parent for file in sorted(place.glob("*/summary.json"))]
    return [log for log in (read(*folders) if folders else []) if log.summary.get("status") in statuses]


def completed(place: Path) -> list[RunLog]:
    """The completed runs in a folder, which may not exist."""
    return logs_of(place, "completed")


def tried(place: Path) -> RunLog | None:
    """The run in a folder that completed or failed, the newest; None where there is none."""
    found = logs_of(place, "completed", "failed")
    return found[-1] if found else None


def run_once(run: Command, place: Path, words: Sequence[str]) -> int:
    """Make a run whose parent folder is ``place``, unless it holds one that completed or failed.

    Returns 0, also for a run that failed, and other exit codes as they are: those of bad input and of interruptions.
    Raises ValueError where the run that ``place`` holds was made with other numbers.
    """
    if (made := tried(place)) is not None:
        check_numbers(made, words)
        return 0
    code = run([*words, "--out", str(place), "--quiet"])
    return 0 if code == FAILED and tried(place) is not None else code


def check_numbers(made: RunLog, words: Sequence[str]) -> None:
    """Raise ValueError where a run was made with another number (of rounds, say) than the flags ``words`` ask for."""
    have = flatten(made.config)
    for flag, text in dict(pairwise(words)).items():
        value = have.get(flag.removeprefix("--")) if flag.startswith("--") else None
        if isinstance(value, int | float) and is_number(text) and float(text) != value:
            cure = "delete it, or give another --out"
            raise ValueError(f"{flag.removeprefix('--')} = {text}: {made.path} was made with {value}; {cure}")


def is_number(text: str) -> bool:
    """Whether a flag's value is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def trial(place: Path, rate: float) -> Path:
    """The folder of the trial of a rate of the arm whose runs are in ``place``."""
    return place / f"trial-lr-{rate:g}"


def seeded(seed: int) -> list[str]:
    """The flags by which a seed is that of run and partition."""
    return ["--seed", str(seed), "--partition.seed", str(seed)]


def run_trials(run: Command, place: Path, words: Sequence[str], trials: Trials) -> int:
    """Make the missing trials of an arm; returns the first exit code other than 0. Of one rate none is needed."""
    for rate in trials.rates if len(trials.rates) > 1 else ():
        own = [*words, "--local.lr", f"{rate:g}", *seeded(trials.seed), *trials.flags]
        if code := run_once(run, trial(place, rate), own):
            return code
    return 0


def scores(place: Path, trials: Trials) -> dict[float, float]:
    """Rate -> what its trial reached in the last evaluations; -1 for one that failed. Only of trials made."""
    found = {rate: log for rate in trials.rates if (log := tried(trial(place, rate))) is not None}
    return {
        rate: worth if (worth := late(log, trials.column, trials.last)) == worth else -1.0
        for rate, log in found.items()
    }


def chosen(place: Path, trials: Trials) -> float | None:
    """The rate with the best score (the smaller of two that are equal); None before all trials are made.

    One rate needs no trial.
    """
    if len(trials.rates) == 1:
        return trials.rates[0]
    found = scores(place, trials)
    return max(found, key=lambda rate: (found[rate], -rate)) if len(found) == len(trials.rates) else None


def late(log: RunLog, column: str, count: int) -> float:
    """The mean of the last ``count`` values of a column that are not null; NaN for a run that failed, or without one.

    The initial model's evaluation is none of them.
    """
    if log.summary.get("status") != "completed" or column not in log.rounds:
        return math.nan
    values = log.rounds[log.rounds["round"] > 0][column].dropna()
    return float(values.tail(count).mean())


def at_best(log: RunLog, by: str, column: str) -> float:
    """The value of ``column`` in the round with the highest ``by``, the first of several; NaN without any."""
    if by not in log.rounds or column not in log.rounds:
        return math.nan
    known = log.rounds.loc[log.rounds["round"] > 0, [by, column]].dropna(subset=[by])
    return float(known[column].to_numpy()[known[by].to_numpy().argmax()]) if len(known) else math.nan
