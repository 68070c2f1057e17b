"""``--track`` and ``--callback``: what is passed on, what a failing tracker does, what is refused."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.run import main
from experiments.runs.execute import execute
from experiments.runs.setup import build
from experiments.trackers.asked import TRACKERS, asked, tracker
from experiments.trackers.tracked import Tracked, numbers_of
from fl_sim import Callback, ConfigError, Run, load
from tests.experiments.config import tiny_world

WORLD: dict[str, Any] = {
    **{"task": f"{tiny_world.__name__}:tiny", "partition": "natural", "model": f"{tiny_world.__name__}:linear"},
    "rounds": 2,
}
FLAGS = ["--task", f"{tiny_world.__name__}:tiny", "--model", f"{tiny_world.__name__}:linear"]


class Adds(Callback):
    """A user's callback."""

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        row["mine"] = row["round"] * 2


class Kept:
    """A sink that keeps what it gets; ``fails`` names the call that raises."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.rounds, self.closed = fails, dict[int, Mapping[str, float]](), False
        self.settings: Mapping[str, object] = {}

    def start(self, folder: Path, settings: Mapping[str, object]) -> "Kept":
        self.settings = settings
        if self.fails == "start":
            raise SystemExit("no server")
        return self

    def numbers(self, server_round: int, values: Mapping[str, float]) -> None:
        if self.fails == "numbers":
            raise OSError("no network")
        self.rounds[server_round] = values

    def close(self) -> None:
        self.closed = True


def ran(sink: Kept, out: Path) -> Path:
    summary, error = execute(build(make(**WORLD, out=str(out))), True, [Tracked("mine", sink.start)])
    assert error is None
    return Path(summary["run_dir"])


def test_a_tracker_gets_the_settings_and_each_round_s_numbers(tmp_path: Path) -> None:
    sink = Kept()
    log = load(ran(sink, tmp_path))
    assert list(sink.rounds) == [0, 1, 2] and sink.closed and sink.settings["strategy.name"] == "fedavg"
    assert [sink.rounds[n]["loss"] for n in range(3)] == log.rounds["loss"].tolist()
    assert "digest" not in sink.rounds[1] and "round" not in sink.rounds[1]
    assert numbers_of({"a": True, "b": float("nan"), "c": [1], "d": None, "e": 2, "f": "x"}) == {"e": 2.0}


@pytest.mark.parametrize("fails", ["start", "numbers"])
def test_a_tracker_that_fails_is_one_event_and_not_the_run_s_failure(fails: str, tmp_path: Path) -> None:
    log = load(ran(Kept(fails), tmp_path))
    told = log.events[log.events["event"] == "tracker_failed"]
    assert log.summary["status"] == "completed" and len(told) == 1 and told.iloc[0]["tracker"] == "mine"
    assert told.iloc[0]["reason"] in ("SystemExit: no server", "OSError: no network")


def test_a_callback_of_the_user_s_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FLAGS, "--rounds", "1", "--callback", f"{__name__}:Adds", "--out", str(tmp_path), "--quiet", "--json"]
    assert main(words) == 0
    assert load(json.loads(capsys.readouterr().out)["run_dir"]).rounds["mine"].tolist() == [0, 2]


@pytest.mark.parametrize(
    "track, callback, message",
    [
        ("tensorbord", "", r"track = 'tensorbord': unknown \(did you mean 'tensorboard'\?\); choose of"),
        ("wandb,,mlflow", "", r"track = 'wandb,,mlflow': names one twice, or none"),
        ("", "Adds", r"callback = 'Adds': must be module:Class"),
        ("", f"{__name__}:WORLD", r"callback = '.*:WORLD': cannot be made: TypeError"),
        ("", "builtins:dict", r"callback = 'builtins:dict': makes a dict; it must make an fl_sim.Callback"),
        ("", "nowhere:Adds", r"callback = 'nowhere:Adds': cannot be made"),
    ],
)
def test_what_is_no_tracker_or_callback_is_refused(track: str, callback: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(track, callback)


def test_what_is_not_installed_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in TRACKERS:
        with pytest.raises(
            ConfigError, match=rf"track = '{name}': .* is not installed; pip install 'fl-sim\[{name}\]'"
        ):
            tracker(name)
    monkeypatch.undo()
    assert main(["--engine", "flower", "--callback", f"{__name__}:Adds"]) == 2
    assert "Flower's own simulation calls none of this project's callbacks" in capsys.readouterr().err


def test_no_tracker_is_imported_unless_asked_for() -> None:
    assert not asked("", "") and not {"tensorboard", "mlflow", "wandb"} & set(sys.modules)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_writes_its_files_in_the_run_s_folder(name: str, tmp_path: Path) -> None:
    module: Any = importlib.import_module(f"experiments.trackers.{name}")
    for package in module.PACKAGES:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} (extra {name}) is not installed")
    sink = module.start(tmp_path, {"strategy.name": "fedavg", "local.lr": 0.1})
    sink.numbers(0, {"loss": 2.0})
    sink.numbers(1, {"loss": 1.0, "accuracy": 0.5})
    sink.close()
    if name == "mlflow":
        import sqlite3

        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            rows = database.execute("select key, value, step from metrics order by step, key").fetchall()
        assert rows == [("loss", 2.0, 0), ("accuracy", 0.5, 1), ("loss", 1.0, 1)]
    elif name == "tensorboard":
        reader: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        found = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [(event.step, event.value) for event in found.Scalars("loss")] == [(0, 2.0), (1, 1.0)]
    else:
        assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb")), sorted(tmp_path.rglob("*"))
