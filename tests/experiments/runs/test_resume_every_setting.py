"""Every setting that is given beside ``--resume`` acts, where it is free to change, or is refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.resume import FREE, free, resume
from experiments.runs.setup import build
from fl_sim import Callback, Run
from fl_sim.dotted import flatten
from fl_sim.logs.columns import CONFIG
from tests.experiments.config.setting_walks import REFUSED, or_refused, seen, settings, wrote
from tests.experiments.config.test_schema_every_setting import HOW, SETTINGS


class Breaks(Callback):
    """Interrupts a run in its second round, as Ctrl-C does."""

    def on_round_start(self, run: Run) -> None:
        if run.round == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run that was interrupted after round 1; one run for equal settings."""
    out, found = tmp_path_factory.mktemp("broken"), dict[str, Path]()

    def look(key: str) -> Path:
        given = settings(key, SETTINGS[key], False, out)
        given["rounds"] += 2
        if repr(given) not in found:
            summary, _ = execute(build(make(**given)), True, [Breaks()])
            found[repr(given)] = Path(summary["run_dir"])
        return found[repr(given)]

    return look


def goes_on(folder: Path, copy: Path, how: str, **changed: object) -> object:
    """What a copy of the run in ``folder`` wrote when it went on, or what shows the setting otherwise."""
    shutil.copytree(folder, copy)
    config = make(str(copy / CONFIG), **changed)
    resumed, setup = resume(copy, config), build(config)
    if how:
        return seen(how, setup)
    execute(setup, True, resumed=resumed)
    return wrote(copy)


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_a_run_that_goes_on_acts_or_is_refused(
    key: str, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, value, how = broken(key), SETTINGS[key][0], HOW.get(key, "").replace(REFUSED, "")
    value = value + 2 if key == "rounds" else value
    found = or_refused(key, lambda: goes_on(folder, tmp_path / "changed", how, **{key: value}))
    if key not in FREE or key == "schedule_rounds":
        assert found == REFUSED
    else:
        assert found not in (REFUSED, goes_on(folder, tmp_path / "same", how))


def test_a_schedule_s_own_rounds_act_where_they_are_those_of_the_run(
    broken: Callable[[str], Path], tmp_path: Path
) -> None:
    """``schedule_rounds`` may be set to the run's rounds, and then ``rounds`` may grow."""
    folder = broken("schedule_rounds")
    found = goes_on(folder, tmp_path / "run", "", schedule_rounds=4, rounds=5)
    assert isinstance(found, dict) and found["summary"]["rounds"] == 5


def test_a_silo_goes_on_with_other_processes_where_that_changes_no_bit(tmp_path: Path) -> None:
    """With the digest of a run of one process throughout; sums in another order, or no silo before, are refused."""
    given = {**settings("rounds", (2,), False, tmp_path / "runs"), "rounds": 3, "engine": "loop"}
    folder = Path(execute(build(make(**given, **{"silo.processes": 1})), True, [Breaks()])[0]["run_dir"])
    found = goes_on(folder, tmp_path / "two", "", **{"silo.processes": 2})
    whole = execute(build(make(**given, **{"silo.processes": 1})), True)[0]
    assert isinstance(found, dict) and found["summary"]["digest"] == whole["digest"]
    for before, changed in (
        ({"silo.processes": 2, "silo.reduce": "ring"}, {"silo.shares": "3,1"}),
        ({"silo.processes": 2, "silo.reduce": "ring"}, {"silo.processes": 3}),
        ({}, {"silo.processes": 1}),
    ):
        old, new = (flatten(make(**{**given, **before, **more}).to_dict()) for more in ({}, changed))
        [key] = changed
        assert not free(key, old, new)
