"""The values of a search's trials, drawn by Optuna (Akiba et al., KDD 2019, arXiv:1907.10902): random, or TPE.

What trial n tries is a function of the search's seed, n and the results of the trials that it may read. Those are in
the sweep's folder, so that a search that was killed goes on as if it had not been.
"""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.analysis.frames import FALLS, RISES
from experiments.sweep.axis_values import Axis, Point
from fl_sim import Callback, Run, rng
from fl_sim.errors import ConfigError

TRIALS = "trials.jsonl"
"""File with what each trial of a search tries: a line a trial."""
SEARCH = "search.json"
"""File with what is searched, and how: a call with another search is refused in the same folder."""
Kind = Literal["random", "tpe"]


@dataclass(frozen=True)
class Result:
    """What a trial reached, as the search reads it."""

    value: float | None
    """On the validation samples, the higher the better; None of a trial that failed."""
    by_round: Mapping[int, float] = field(default_factory=dict)
    pruned: bool = False


def optuna() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        package: Any = importlib.import_module("optuna")
    except ImportError as error:
        cure = "pip install 'fl-sim[sweep]', or leave --trials out for a grid"
        raise ConfigError(f"trials: a search needs optuna, which is not installed ({error}); {cure}") from error
    package.logging.set_verbosity(package.logging.ERROR)
    return package


class Search:
    """Asks for the values of trials.

    Parameters
    ----------
    axes : sequence of Axis
        What is varied.
    kind : str
        ``random``, or ``tpe`` (tree-structured Parzen estimator: Bergstra et al., NIPS 2011).
    seed : int
        Keys what is drawn.
    folder : Path
        The sweep's folder, which keeps what was asked.
    how : object
        What else the results depend on, by name, as JSON can hold it: a call with another value is refused.
    """

    def __init__(self, axes: Sequence[Axis], kind: Kind, seed: int, folder: Path, **how: object) -> None:
        self.axes, self.kind, self.seed, self.folder, self.how = axes, kind, seed, folder, how
        self.optuna = optuna()
        self.asked: list[Point] = []
        self._check_same()
        file = folder / TRIALS
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0] if file.is_file() else ""
        for line in whole.splitlines():
            point = json.loads(line)
            if set(point) != {one.key for one in axes}:
                cure = "name another folder with --out"
                raise ConfigError(f"out: {file} has trials of {', '.join(point)}; {cure}")
            self.asked.append(point)

    def _check_same(self) -> None:
        """Keep what is searched, and how. Raises ConfigError where the folder holds trials of another search."""
        file, cure = self.folder / SEARCH, "name another folder with --out"
        what = {"axes": [repr(one) for one in self.axes], "kind": self.kind, "seed": self.seed, **self.how}
        own: dict[str, object] = json.loads(json.dumps(what))
        stored: dict[str, object] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not stored and (self.folder / TRIALS).is_file():
            why = f"but no {SEARCH} that says of which search, as those of older versions"
            raise ConfigError(f"out: {self.folder} has trials of a search, {why}; {cure}")
        for key in (key for key in stored if own.get(key) != stored[key]):
            raise ConfigError(
                f"out: {self.folder} has trials of a search with {key} = {stored[key]!r}, not {own.get(key)!r}; {cure}"
            )
        if own != stored:
            temporary = file.with_name(f".{SEARCH}.{os.getpid()}")
            temporary.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, file)

    def ask(self, count: int, results: Sequence[Result]) -> list[Point]:
        """The values of the next ``count`` trials, given the results of all trials before them; they are kept.

        What was asked before is asked again.
        """
        number = len(results)
        while len(self.asked) < number + count:
            trial = self._study(results, len(self.asked)).ask(self._distributions())
            self.asked.append(self._point(trial.params))
            with (self.folder / TRIALS).open("a+b") as file:  # what a kill has cut off is dropped first
                file.seek(0)
                end = file.read().rfind(b"\n") + 1
                file.truncate(end)
                file.write(json.dumps(self.asked[-1]).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return self.asked[number : number + count]

    def pruning(self, number: int, results: Sequence[Result], columns: Sequence[str]) -> Callback:
        """The callback that ends a run of trial ``number`` whose validation falls behind the median of earlier ones.

        ``columns``: the first of them in which a round has a number is compared.
        """
        study = self._study(results, number)
        study.enqueue_trial(self._params(self.asked[number]))
        return Pruning(study.ask(self._distributions()), columns)

    def _study(self, results: Sequence[Result], number: int) -> Any:
        """A study of these results, whose sampler is keyed by the seed and the number of the trial."""
        o, seed = self.optuna, rng.key(self.seed, "sweep", number) % 2**32
        sampler = o.samplers.RandomSampler(seed=seed) if self.kind == "random" else o.samplers.TPESampler(seed=seed)
        study = o.create_study(direction="maximize", sampler=sampler, pruner=o.pruners.MedianPruner())
        distributions, states = self._distributions(), o.trial.TrialState
        for point, result in zip(self.asked, results, strict=False):
            state = states.PRUNED if result.pruned else states.FAIL if result.value is None else states.COMPLETE
            study.add_trial(
                o.trial.create_trial(
                    state=state,
                    params=self._params(point),
                    distributions=distributions,
                    value=result.value if state is states.COMPLETE else None,
                    intermediate_values=dict(result.by_round),
                )
            )
        return study

    def _distributions(self) -> dict[str, Any]:
        kinds = self.optuna.distributions
        found: dict[str, Any] = {}
        for one in self.axes:
            if not one.is_range:  # by place: Optuna's choices are plain values, and ours may be lists
                found[one.key] = kinds.CategoricalDistribution(tuple(range(len(one.values))))
            elif one.whole:
                found[one.key] = kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
            else:
                found[one.key] = kinds.FloatDistribution(one.low, one.high, log=one.log)
        return found

    def _point(self, params: Mapping[str, Any]) -> Point:
        return {one.key: params[one.key] if one.is_range else one.values[params[one.key]] for one in self.axes}

    def _params(self, point: Point) -> dict[str, Any]:
        return {one.key: point[one.key] if one.is_range else self._index(one, point[one.key]) for one in self.axes}

    def _index(self, one: Axis, value: object) -> int:
        if value not in one.values:
            raise ConfigError(
                f"vary = {one.key!r}: {self.folder / TRIALS} has {value!r}; name another folder with --out"
            )
        return one.values.index(value)


class Pruning(Callback):
    """Ends a run whose validation falls behind the median of the earlier trials in the same round.

    A run that goes on after a kill has its earlier rounds reported again, since the best of them counts too.
    """

    reads_digest = False

    def __init__(self, trial: Any, columns: Sequence[str]) -> None:
        self.trial, self.columns = trial, columns

    def on_run_start(self, run: Run) -> None:
        """Tell the search the numbers of the rounds that are done; the last of them may have ended the run."""
        for row in run.rows:
            self._report(run, row, int(row["round"]), last=row is run.rows[-1])

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Tell the search this round's number, and stop where it says so."""
        self._report(run, row, run.round)

    def _report(self, run: Run, row: Mapping[str, Any], number: int, last: bool = True) -> None:
        column = next((name for name in self.columns if worth(row, name) is not None), "")
        if not column or number == 0:
            return
        self.trial.report(worth(row, column), number)
        if last and self.trial.should_prune():
            run.stop(f"pruned: {column} of round {number} is behind the median of the earlier trials")


def worth(row: Mapping[str, Any], column: str) -> float | None:
    """A row's number in a column, the higher the better; None where it has none."""
    value = row.get(column)
    if value is None or value != value:
        return None
    return -float(value) if falls(column) else float(value)


def falls(column: str) -> bool:
    """Whether a column of the validation samples is the better the lower it is."""
    return any(part in column for part in FALLS)


def has_direction(column: str) -> bool:
    """Whether the name of a column tells, without a contradiction, if higher or lower is better."""
    return falls(column) != any(part in column for part in RISES)
