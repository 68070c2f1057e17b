"""The final model is evaluated, central and on clients, however a run ends; a run that goes on has an undisturbed log.

The reference of a run that ends after round 4 of 6 is a run of 4 rounds: its last line and its clients' rows. That of
the accuracy is the saved model, applied to the test set in plain torch.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import run as command
from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.lockstep import run_together
from experiments.runs.setup import build
from experiments.runs.summary import of_final_model
from fl_sim import Batch, Callback, Local, Loss, RoundFailed, Run, from_arrays, load
from fl_sim.learning.rule import Metrics
from fl_sim.learning.task import Task
from fl_sim.logs.round_columns import repeatable
from fl_sim.registry import offer
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 4)).astype(np.float32)
Y = (X @ DRAW.normal(size=(4, 3))).argmax(1)
X_TEST = DRAW.normal(size=(41, 4)).astype(np.float32)
Y_TEST = (X_TEST**2 @ DRAW.normal(size=(4, 3))).argmax(1)
HERE = "tests.fl_sim.rounds.test_round_evaluation"


@offer("task")
def last_world() -> Task:
    """Sixty samples of three classes."""
    return from_arrays(X, Y, x_test=X_TEST, y_test=Y_TEST, name="last")


@dataclass
class Sick(FedAvg):
    """Its clients fail at a tiny learning rate."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Raises where the learning rate is tiny."""
        if local_.lr < 0.01:
            raise ArithmeticError("sick")
        return super().local_update(model, state, batches, loss, local_)


SETTINGS: dict[str, Any] = {
    "task": f"{HERE}:last_world",
    "model": "lr",
    "strategy": f"{HERE}:Sick",
    "clients": 4,
    "holdout_clients": 1,
    "rounds": 6,
    "local": {"lr": 0.5},
    "engine": "loop",
    "evaluate_every": 3,
    "validation": 0.1,
    "personalize_steps": 1,
    "partition.held_out": 0.3,
    "checkpoint_every": 1,
}


class Ends(Callback):
    """Ends a run after round 4, in one of several ways."""

    def __init__(self, how: str) -> None:
        self.how, self.evaluated = how, list[int]()

    def on_round_start(self, run: Run) -> None:
        if run.round == 5 and self.how == "interrupted":
            raise KeyboardInterrupt
        if run.round == 5 and self.how == "failed":
            run.train_config["local.lr"] = 1e-9

    def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
        self.evaluated.append(run.round)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        if run.round == 4 and self.how == "stopped":
            run.stop("enough")


def go(out: Path, how: str = "", **more: Any) -> tuple[Path, Ends]:
    """A run that ends after round 4 in one way; its folder."""
    ends = Ends(how)
    summary, error = execute(build(make(**{**SETTINGS, "out": str(out), **more})), True, [ends])
    expected = {"failed": RoundFailed, "interrupted": KeyboardInterrupt}.get(how, type(None))
    assert type(error) is expected and summary["status"] == {"": "completed", "interrupted": "stopped"}.get(how, how)
    return Path(summary["run_dir"]), ends


def log_of(folder: Path) -> dict[str, Any]:
    """The lines of rounds and clients, without times."""
    tables = {name: (folder / f"{name}.jsonl").read_text().splitlines() for name in ("rounds", "clients")}
    return {name: [repeatable(json.loads(line)) for line in lines] for name, lines in tables.items()}


def evaluations(folder: Path) -> dict[str, Any]:
    """What the summary has of the final model."""
    names = "accuracy loss val_accuracy personal_accuracy personal_loss unseen_loss digest rounds"
    return {name: load(folder).summary[name] for name in names.split()}


def true_accuracy(folder: Path) -> float:
    """Of the model in a run's folder, in plain torch."""
    bias, weight = sorted(load(folder).model().values(), key=torch.Tensor.dim)
    right = (torch.from_numpy(X_TEST) @ weight.T + bias).argmax(1) == torch.from_numpy(Y_TEST)
    return int(right.sum()) / len(Y_TEST)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four rounds."""
    return go(tmp_path_factory.mktemp("four"), rounds=4)[0]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of six rounds."""
    return go(tmp_path_factory.mktemp("six"))[0]


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_run_that_ends_early_has_the_evaluations_of_its_last_model(
    how: str, four: Path, six: Path, tmp_path: Path
) -> None:
    folder, ends = go(tmp_path, how)
    assert evaluations(folder) == evaluations(four) and None not in evaluations(four).values()
    assert evaluations(folder)["accuracy"] == true_accuracy(folder) and ends.evaluated == [0, 3, 4]
    mine, reference = log_of(folder), log_of(four)
    assert mine["rounds"] == reference["rounds"]
    assert [row for row in mine["clients"] if row["round"] < 5] == reference["clients"]
    assert command.main(["--resume", str(folder), "--quiet"]) == 0
    assert log_of(folder) == log_of(six) and evaluations(folder) == evaluations(six)


def test_an_interrupted_run_ends_at_once_and_pairs_its_digest_with_no_other_models_numbers(
    six: Path, tmp_path: Path
) -> None:
    folder, _ = go(tmp_path, "interrupted")
    found, digests = evaluations(folder), [row["digest"] for row in log_of(six)["rounds"]]
    assert found.pop("rounds") == 4 and found.pop("digest") == digests[4] and set(found.values()) == {None}


def test_a_finished_run_that_is_made_longer_has_the_log_of_an_undisturbed_one(
    four: Path, six: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(four, tmp_path / four.name))
    assert command.main(["--resume", str(folder), "--rounds", "6", "--quiet"]) == 0
    assert log_of(folder) == log_of(six) and evaluations(folder) == evaluations(six)


def test_a_run_whose_process_ended_before_its_last_evaluation_gets_it_by_resume(four: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(four, tmp_path / four.name))
    for name in ("summary.json", "checksums.json"):
        (folder / name).unlink()
    lines = (folder / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rounds.jsonl").write_bytes(b"".join(lines[:-1]))  # killed while the line was replaced
    assert command.main(["--resume", str(folder), "--quiet"]) == 0
    assert log_of(folder) == log_of(four) and evaluations(folder) == evaluations(four)


def test_a_second_failure_in_the_last_evaluation_is_an_event(tmp_path: Path) -> None:
    class Breaks(Ends):
        def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
            if run.round == 4:
                raise ZeroDivisionError("again")

    summary, error = execute(build(make(**SETTINGS, out=str(tmp_path))), True, [Breaks("failed")])
    events = load(summary["run_dir"]).events
    assert events.loc[events["event"] == "not_evaluated", "reason"].tolist() == ["ZeroDivisionError: again"]
    assert "sick" in str(error) and summary["rounds"] == 4


def test_runs_of_one_batch_that_end_in_different_rounds(tmp_path: Path) -> None:
    base = {**SETTINGS, "strategy": "fedavg", "engine": "vmap", "stop.patience": 1, "out": str(tmp_path)}
    configs = [make(**{**base, "local": {"lr": lr}}) for lr in (0.0, 0.5)]
    results = [summary for summary, _ in run_together(configs, "local.lr=0,.5", True)]
    assert [r["status"] for r in results] == ["stopped", "completed"] and results[0]["rounds"] == 3
    for summary in results:
        assert summary["accuracy"] == true_accuracy(Path(summary["run_dir"])) and summary["unseen_loss"] is not None


def test_of_rows_with_the_final_digest_alone() -> None:
    rows: list[dict[str, Any]] = [{"digest": "a", "accuracy": 0.1}, {"digest": "b", "accuracy": 0.5, "loss": 2.0}]
    assert of_final_model([*rows, {"digest": "c", "accuracy": None}]) == {"digest": "c"}
    assert of_final_model([*rows, {"digest": "b", "accuracy": None}]) == rows[1]  # the same model, kept
    assert of_final_model([]) == {}
