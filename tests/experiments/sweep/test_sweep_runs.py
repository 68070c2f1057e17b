"""Sweeps of a tiny world: each run has the numbers that it would have alone; nothing that is over is made again."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.run import Outcome, run
from experiments.sweep import Sweep, sweep, trial_batches, trial_runs
from experiments.sweep.__main__ import main
from experiments.sweep.axis_values import axes_from
from experiments.sweep.search import Result, Search, optuna
from experiments.sweep.trial_batches import Job, batches
from experiments.sweep.trial_runs import made, make_run
from fl_sim import Callback, ConfigError, Run, load
from tests.experiments.config import tiny_world

WORLD: dict[str, Any] = {
    **{"task": f"{tiny_world.__name__}:tiny", "partition": "natural", "model": f"{tiny_world.__name__}:linear"},
    **{"rounds": 2, "dtype": "float64", "validation": 0.2, "checkpoint_every": 1},
}
VARY = {"local.lr": [0.01, 0.5], "local.epochs": [1, 2]}


class Breaks(Callback):
    """Interrupts a run in its second round, as a signal does."""

    def on_round_start(self, run: Run) -> None:
        if run.round == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep(VARY, out=tmp_path_factory.mktemp("swept") / "sweep", seed=[0, 1], **WORLD)


def test_each_run_of_a_batch_is_equal_to_its_own_run(swept: Sweep, tmp_path: Path) -> None:
    assert len(swept.table) == 4 and set(swept.table["state"]) == {"completed"} and set(swept.table["seeds"]) == {2}
    third = swept.table.iloc[2]
    assert (third["local.lr"], third["local.epochs"]) == (0.5, 1)
    batched = load(swept.runs[third["trial"]][1])
    assert "one of 4 runs of a batch" in batched.events["note"].dropna().iloc[0]  # 2 rates and 2 seeds
    own = run(**{**WORLD, "local": {"lr": 0.5, "epochs": 1}, "seed": 1, "out": tmp_path})
    for column in ("loss", "val_loss", "train_loss", "update_norm"):
        assert batched.rounds[column].tolist() == pytest.approx(own.log.rounds[column].tolist(), nan_ok=True)
    accuracies = [load(path).summary["val_accuracy"] for path in swept.runs[third["trial"]]]
    assert third["val_accuracy"] == pytest.approx(sum(accuracies) / 2)


def test_the_validation_samples_choose(swept: Sweep) -> None:
    assert swept.chosen is not None and swept.chosen["val_accuracy"] == swept.table["val_accuracy"].max()
    facts = json.loads((swept.folder / "sweep.json").read_text())
    assert facts["chosen_by"] == "val_accuracy" and facts["chosen"]["trial"] == swept.chosen["trial"]
    assert (swept.folder / "table.csv").is_file() and facts["status"] == "completed"


def test_what_is_over_is_not_made_again_and_what_was_cut_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vary, given = {"local.lr": [0.1, 0.2]}, {**WORLD, "batch": False, "out": tmp_path}
    first = sweep(vary, **given)
    places = [folder.parent for folders in first.runs.values() for folder in folders]
    whole = load(first.runs[first.table["trial"][1]][0])
    for file in ("summary.json", "checksums.json"):  # as after SIGKILL in the last round
        (whole.path / file).unlink()
    lines = (whole.path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (whole.path / "rounds.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    for newest in sorted((whole.path / "checkpoints").iterdir())[-1:]:
        newest.unlink()
    assert [made(place).state for place in places] == ["completed", "begun"]
    begun: list[str] = []
    real = trial_runs.begin
    monkeypatch.setattr(trial_runs, "begin", lambda *given: begun.append("again") or real(*given))
    again = sweep(vary, **given)
    assert not begun and [len(list(place.iterdir())) for place in places] == [1, 1]  # no new folder
    assert load(whole.path).rounds["digest"].tolist() == whole.rounds["digest"].tolist()
    assert again.table.drop(columns="seconds").equals(first.table.drop(columns="seconds"))
    with pytest.raises(ConfigError, match=r"out: .* was made with rounds = 2, not 3; name another folder"):
        sweep(vary, **{**given, "rounds": 3})


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    config = make(**WORLD)
    with pytest.raises(KeyboardInterrupt):
        make_run(config, tmp_path, [Breaks()])
    assert made(tmp_path).state == "begun"
    [done] = trial_batches.make_batch([Job(config, tmp_path)])
    own = run(**{**WORLD, "out": tmp_path / "own"})
    assert isinstance(own, Outcome) and done.folder is not None and done.state == "completed"
    assert load(done.folder).summary["digest"] == own.summary["digest"]


def test_failed_trials_are_shown_as_failed(tmp_path: Path) -> None:
    found = sweep({"local.lr": [0.1, 1e200], "partition.held_out": [0.0, 0.99]}, out=tmp_path, batch=False, **WORLD)
    states = found.table.set_index(["local.lr", "partition.held_out"])["state"]
    assert states[0.1, 0.0] == "completed" and states[1e200, 0.0] == "failed" and found.failed >= 1
    text = (tmp_path / "table.txt").read_text()
    assert "failed: local.lr=1e+200" in text and found.chosen is not None and found.chosen["local.lr"] == 0.1
    again = sweep({"local.lr": [0.1, 1e200], "partition.held_out": [0.0, 0.99]}, out=tmp_path, batch=False, **WORLD)
    assert again.table.equals(found.table)  # a failure is a result


def test_runs_of_one_batch_differ_in_numbers_alone(tmp_path: Path) -> None:
    def sizes(*changes: dict[str, Any]) -> list[int]:
        jobs = [Job(make(**{**WORLD, **change}), tmp_path / str(n)) for n, change in enumerate(changes)]
        return [len(group) for group in batches(jobs)]

    assert sizes({"seed": 0}, {"seed": 1}, {"local.lr": 0.3}, {"server.lr": 0.5}) == [4]
    assert sizes({"local.epochs": 1}, {"local.epochs": 2}) == [1, 1]
    assert sizes({"local.clip_norm": 0.0}, {"local.clip_norm": 1.0}, {"local.clip_norm": 2.0}) == [1, 2]
    assert sizes({"engine": "loop"}, {"engine": "loop", "seed": 1}) == [1, 1]
    assert sizes(*({"seed": seed} for seed in range(40))) == [32, 8]


@pytest.mark.parametrize(
    "words, message",
    [
        ("--vary strategy.mux=1;2 --strategy fedprox", r"strategy.mux = '1': strategy fedprox takes no such parameter"),
        ("--vary local.lr=1;2 --local.lr 3", r"vary = 'local.lr': has a value of its own"),
        ("--vary local.lr=1;2 --dry-run", r"dry_run = True: means nothing to a sweep"),
        ("--vary local.lr=log:1e-3..1 --trials 4", r"trials = 4: a search chooses by .* validation = 0 keeps none"),
        (
            "--vary local.lr=1;2 --choose_by accuracy",
            r"choose_by = 'accuracy': choices read the validation samples alone",
        ),
        ("--vary local.lr=1;2 --strategy fedavg,fedprox", r"give --vary 'strategy=fedavg;fedprox'"),
        ("--vary local.lr=0.1;0.10", r"are the same runs, and would count as two trials"),
        ("--vary local.lr=1;2 --prune", r"prune = true: a search alone"),
        ("--vary local.lr=1;2 --parallel 0", r"parallel = 0"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--out", str(tmp_path / "sweep")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error), error
    assert not list((tmp_path / "sweep").glob("*/*")) if (tmp_path / "sweep").exists() else True


def test_without_optuna_a_search_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"needs optuna, which is not installed .*pip install 'fl-sim\[sweep\]'"):
        optuna()


def test_what_a_search_tries_is_a_function_of_seed_number_and_results(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna (extra sweep) is not installed")
    axes = axes_from({"local.lr": "log:1e-3..1", "local.epochs": "int:1..5", "local.optimizer": ["sgd", "adam"]})
    results = [Result(0.1 * n, {1: 0.1 * n}) for n in range(12)]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    search = Search(axes, "tpe", 0, tmp_path / "a")
    asked = [search.ask(1, results[:n])[0] for n in range(12)]
    killed = Search(axes, "tpe", 0, tmp_path / "b")
    _ = [killed.ask(1, results[:n]) for n in range(5)]
    with (tmp_path / "b" / "trials.jsonl").open("a") as file:
        file.write('{"local.lr": 0.0')  # a line that a kill has cut off
    went_on = Search(axes, "tpe", 0, tmp_path / "b")
    assert [went_on.ask(1, results[:n])[0] for n in range(12)] == asked
    rates = [float(str(point["local.lr"])) for point in asked]
    assert all(1e-3 <= rate <= 1 for rate in rates) and all(point["local.epochs"] in range(1, 6) for point in asked)
    assert len(set(rates)) == 12
    other = Search(axes, "random", 1, tmp_path)
    assert other.ask(3, []) != asked[:3]
