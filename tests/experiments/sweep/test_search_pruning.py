"""A pruned search that is killed decides as one that is not: what a run reported before counts when it goes on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.sweep import sweep
from experiments.sweep.axis_values import axes_from
from experiments.sweep.planned_trials import search_of
from experiments.sweep.search import TRIALS, Result, Search
from experiments.sweep.sweep_plan import Plan
from experiments.sweep.trial_runs import made, make_run
from fl_sim import Callback, ConfigError, Run, load
from tests.experiments.sweep.test_sweep_runs import WORLD, Breaks

optuna = pytest.importorskip("optuna", reason="optuna (extra sweep) is not installed")
EARLIER = [Result(0.5, {1: 0.5, 2: 0.5, 3: 0.5}) for _ in range(6)]
"""What six trials reached in three rounds each."""


class Reaches(Callback):
    """Gives each round the accuracy that a test wants."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.numbers = numbers

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        if run.round:
            row["val_accuracy"] = self.numbers[run.round - 1]


def run(place: Path, numbers: Sequence[float], *more: Callback) -> str:
    """Make the run of a seventh trial, or go on with it; returns its state."""
    place.parent.mkdir(exist_ok=True)
    search = Search(axes_from({"local.lr": "0.1..0.2"}), "random", 0, place.parent)
    search.ask(7, [])
    pruning = search.pruning(6, EARLIER, ["val_accuracy", "val_loss"])
    return make_run(make(**{**WORLD, "rounds": 3}), place, [Reaches(numbers), pruning, *more]).state


def test_a_run_that_goes_on_is_judged_by_its_earlier_rounds_too(tmp_path: Path) -> None:
    """The best round so far is compared with the others' median of this round: .9 of round 1 keeps the run alive."""
    numbers = [0.9, 0.1, 0.1]
    assert run(tmp_path / "a" / "run", numbers) == "completed"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b" / "run", numbers, Breaks())
    assert made(tmp_path / "b" / "run").state == "begun" and run(tmp_path / "b" / "run", numbers) == "completed"


def test_a_run_that_was_killed_once_it_was_to_end_trains_no_further(tmp_path: Path) -> None:
    assert run(tmp_path / "run", [0.6, 0.1, 0.1]) == "completed"
    place = tmp_path / "other" / "run"
    assert run(place, [0.4, 0.1, 0.1]) == "pruned"
    [folder] = place.iterdir()
    digests = load(folder).rounds["digest"].tolist()
    for file in ("summary.json", "checksums.json"):  # as after SIGKILL
        (folder / file).unlink()
    assert made(place).state == "begun" and run(place, [0.4, 0.9, 0.9]) == "pruned"
    assert load(folder).rounds["digest"].tolist() == digests and len(digests) == 2  # round 0 and round 1


def test_a_task_without_accuracy_is_pruned_by_its_loss(tmp_path: Path) -> None:
    search = Search(axes_from({"local.lr": "0.1..0.2"}), "random", 0, tmp_path)
    search.ask(7, [])
    worse = [Result(-0.1, {1: -0.1, 2: -0.1}) for _ in range(6)]
    pruning: Any = search.pruning(6, worse, ["val_accuracy", "val_loss"])
    stopped: list[str] = []
    given: Any = type("Given", (), {"round": 1, "stop": staticmethod(stopped.append)})
    pruning.on_round_end(given, {"round": 1, "val_loss": 0.5})
    assert stopped == ["pruned: val_loss of round 1 is behind the median of the earlier trials"]


def test_the_lines_of_a_search_count_all_of_its_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {**WORLD, "rounds": 1, "out": tmp_path, "search": "random", "seed": [0, 1], "quiet": False, "prune": True}
    sweep({"local.lr": "0.1..0.2"}, trials=2, **given)
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]


def test_a_folder_that_does_not_say_of_which_search_it_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRIALS).write_text('{"local.lr": 0.1}\n')
    with pytest.raises(ConfigError, match=r"has trials of a search, but no search.json .*; name another folder"):
        Search(axes_from({"local.lr": "0.1..0.2"}), "tpe", 0, tmp_path)


def test_a_search_by_other_numbers_is_another_search(tmp_path: Path) -> None:
    def plan(choose_by: str = "", seeds: Sequence[int] = (0,)) -> Plan:
        configs = [make(**{**WORLD, "seed": seed}) for seed in seeds]
        return Plan(axes_from({"local.lr": "0.1..0.2"}), lambda point: configs, tmp_path, 2, choose_by=choose_by)

    search_of(plan())
    search_of(plan())
    with pytest.raises(ConfigError, match="with choose_by = '', not 'val_loss'; name another folder"):
        search_of(plan("val_loss"))
    with pytest.raises(ConfigError, match=r"with seeds = \[0\], not \[0, 1\]"):
        search_of(plan(seeds=(0, 1)))
