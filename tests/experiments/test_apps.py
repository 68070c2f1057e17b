"""``--app PATH``: unchanged Flower projects (tests/apps) get logs, their failures count, and digests repeat."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.provenance import of_run
from experiments.run import main
from fl_sim import load
from fl_sim.logs.columns import SUMMARY_KEYS
from fl_sim.logs.reader import RunLog
from strategies.fedavg import FedAvg

APPS = Path(__file__).parents[1] / "apps"
Make = Callable[..., Path]
Call = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``make("plain", "lr = 0.1", "lr = 0.2", ...)``: a copy of an app with texts of its pyproject.toml replaced."""
    monkeypatch.chdir(tmp_path)

    def copy(name: str, *changes: str) -> Path:
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(APPS / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "pyproject.toml"
        text = file.read_text()
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert text.count(old) == 1
            text = text.replace(old, new)
        file.write_text(text)
        return folder

    return copy


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call(app, "--rounds", "2")``: (exit code, summary, stderr) of a run in this process."""

    def run(app: Path | str, *words: str) -> tuple[int, dict[str, Any], str]:
        code = main(["--app", str(app), "--quiet", "--json", "--out", str(tmp_path / "runs"), *words])
        printed = capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]) if printed.out else {}, printed.err

    return run


def log(summary: dict[str, Any]) -> RunLog:
    return load(summary["run_dir"])


def test_an_app_runs_from_the_shell_and_twice_to_the_same_digest(make: Make, call: Call, tmp_path: Path) -> None:
    app = make("plain")
    command = [sys.executable, "-m", "experiments.run", "--app", str(app), "--json", "--out", "shell"]
    env = {**os.environ, "PYTHONHASHSEED": "3", "MPLBACKEND": "Agg"}
    shell = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert shell.returncode == 0, shell.stderr
    summary = json.loads(shell.stdout.splitlines()[-1])
    assert (summary["status"], summary["rounds"], summary["task"], summary["strategy"]) == (
        "completed",
        3,
        "plain",
        "FedAvg",
    )
    assert (
        summary.keys() <= SUMMARY_KEYS.keys() | {"app"}
        and "curves" in shell.stdout
        and "plain FedAvg seed 0" in shell.stderr
    )
    torch.rand(7)
    again = call(app)[1]
    assert again["digest"] == summary["digest"]
    read = load(tmp_path / summary["run_dir"])
    assert read.rounds["round"].tolist() == [0, 1, 2, 3] and read.rounds["completed"].tolist()[1:] == [
        3,
        3,
        3,
    ]  # half of six
    assert (
        read.rounds["accuracy"].tolist() == read.rounds["test_accuracy"].tolist()
        and read.rounds["lr"].tolist()[1:] == [0.1] * 3
    )
    assert (
        read.rounds["accuracy"].iloc[-1] > read.rounds["accuracy"].iloc[0]
        and read.rounds["eval_acc"].notna().sum() == 3
    )
    assert read.rounds["digest"].iloc[-1] == summary["digest"] and "fc.weight" in read.model()
    assert read.clients["phase"].value_counts().to_dict() == {"train": 9, "evaluate": 18}
    result = f"final model: test accuracy {summary['accuracy']} after rounds [0, 1, 2, 3]"
    assert result in shell.stdout  # the app's own Result is what it expects


def test_seed_clients_and_rounds(make: Make, call: Call) -> None:
    app = make("plain")
    first = call(app, "--rounds", "1", "--clients", "4")[1]
    other = call(app, "--rounds", "1", "--clients", "4", "--seed", "1")[1]
    assert first["rounds"] == other["rounds"] == 1 and first["digest"] != other["digest"]
    assert log(first).rounds["clients"].tolist()[1:] == [2]
    several = call(app, "--rounds", "1", "--clients", "4", "--seed", "0,1")[1]
    assert [run["digest"] for run in several["runs"]] == [first["digest"], other["digest"]]


def test_its_config_repeats_the_run(make: Make, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    app = make("plain")
    first = call(app, "--rounds", "2", "--seed", "5")[1]
    capsys.readouterr()
    project = app / "pyproject.toml"  # its own config was recorded: a change of mind since does not matter
    text = project.read_text()
    project.write_text(
        "".join("lr = 1e30\n" if line.startswith("lr ") else line for line in text.splitlines(keepends=True))
    )
    assert project.read_text() != text
    assert main([str(Path(first["run_dir"]) / "config.toml"), "--quiet", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["digest"] == first["digest"] and again["run_dir"] != first["run_dir"]


def test_draws_of_one_client_do_not_depend_on_the_others(make: Make, call: Call) -> None:
    """Each client draws random numbers at its end; more draws of one client change nothing for the others."""
    app = make("plain", "fraction-train = 0.5", "fraction-train = 1.0")
    first = call(app, "--rounds", "2")[1]
    file = app / "plain" / "client_app.py"
    file.write_text(file.read_text().replace("torch.rand(client)", "torch.rand(99 * client + 5)"))
    assert call(app, "--rounds", "2")[1]["digest"] == first["digest"]


def test_a_client_that_raises_fails_the_run(make: Make, call: Call) -> None:
    app = make("plain", "fail.client = -1", "fail.client = 4", "fraction-train = 0.5", "fraction-train = 1.0")
    code, summary, error = call(app)
    assert (code, summary["status"], summary["rounds"]) == (1, "failed", 1)
    assert "run failed: round 2, client 4, train: Traceback" in error and "the disk of this device is full" in error
    assert log(summary).events["event"].tolist() == ["start", "client_failed", "run_failed"]
    start = log(summary).events.iloc[0]
    assert {k: start[k] for k in ("commit", "cpu", "cores")} == of_run() and start["app"] == str(app)
    assert "fc.weight" in log(summary).model()
    code, summary, _ = call(app, "--failures", "tolerate:0.2")
    assert (code, summary["status"], summary["clients_failed"]) == (0, "completed", 2)
    assert call(app, "--failures", "tolerate:0.1")[0] == 1
    early = ("fail.client = -1", "fail.client = 0", "fail.round = 2", "fail.round = 1")
    leaving = make("plain", *early, 'fail.how = "raise"', 'fail.how = "exit"')
    code, summary, error = call(leaving, "--clients", "2")
    assert code == 1 and "client 0, train" in error and "SystemExit: 0" in error


def test_an_app_with_rounds_of_its_own_has_a_row_an_exchange(make: Make, call: Call) -> None:
    code, summary, _ = call(make("talk"), "--clients", "4")
    rows = log(summary).rounds
    assert (code, summary["strategy"], summary["digest"]) == (0, "own rounds", rows["digest"].iloc[-1])
    assert rows["exchange"].tolist()[1:] == ["query", "train.step", "train.step"] and rows["clients"].tolist()[1:] == [
        4,
        3,
        3,
    ]
    assert (
        call(make("talk"), "--clients", "4")[1]["digest"]
        == summary["digest"]
        != call(make("talk"), "--clients", "5")[1]["digest"]
    )
    assert rows["query_samples"].iloc[1] > 0 and log(summary).model()["w"].shape == (3,)


@pytest.mark.parametrize(("how", "reason"), [("nan", "NaN or infinity in w"), ("none", "returned NoneType")])
def test_failures_in_rounds_of_its_own(how: str, reason: str, make: Make, call: Call) -> None:
    bad = make("talk", 'how = "good"', f'how = "{how}"')
    code, summary, error = call(bad, "--clients", "3")
    assert (code, summary["rounds"]) == (1, 1) and "run failed: round 2, client 1, train: " in error and reason in error
    swallowing = make("talk", 'how = "good"', f'how = "{how}"', "swallow = false", "swallow = true")
    code, summary, error = call(swallowing, "--clients", "3")
    assert (code, summary["status"]) == (1, "failed") and reason in error  # though the app caught the error
    code, summary, _ = call(bad, "--clients", "3", "--failures", "tolerate:0.4")
    assert (code, summary["clients_failed"]) == (0, 2)
    assert torch.isfinite(log(summary).model()["w"]).all()


def test_a_second_strategy_goes_on_counting(make: Make, call: Call) -> None:
    app = make("plain", "num-server-rounds = 3", "num-server-rounds = 1")
    file = app / "plain" / "server_app.py"
    more = '    strategy.start(grid, result.arrays, 2, train_config=ConfigRecord({"lr": 0.1}))\n'
    file.write_text(file.read_text().replace("    rounds = ", more + "    rounds = "))
    code, summary, error = call(app)
    assert code == 0, error
    rows = log(summary).rounds
    assert rows["round"].tolist() == [0, 1, 2, 3, 4] and rows["digest"].iloc[1] == rows["digest"].iloc[2]
    assert sorted(set(log(summary).clients["round"])) == [1, 3, 4]


def test_modules_of_an_app_hide_ours_only_while_it_runs(make: Make, call: Call) -> None:
    app = make("talk")
    (app / "strategies.py").write_text("own = 7\n")
    (app / "server.py").write_text("import strategies\nassert strategies.own == 7\n" + (app / "server.py").read_text())
    assert call(app, "--clients", "3")[0] == 0
    import strategies

    assert strategies.__path__ and FedAvg.__module__ == "strategies.fedavg"
    assert "client" not in sys.modules and "server" not in sys.modules and str(app) not in sys.path


BROKEN = {
    "components": ('serverapp = "plain.server_app:app"\n', "", "no serverapp in .tool.flwr.app.components."),
    "reference": ('"plain.server_app:app"', '"plain.server_app"', "serverapp = 'plain.server_app'"),
    "module": ("plain.client_app:app", "plain.nothing:app", "ModuleNotFoundError"),
    "attribute": ("plain.client_app:app", "plain.client_app:what", "AttributeError"),
    "kind": ("plain.client_app:app", "plain.server_app:app", "is a ServerApp; it must be a ClientApp"),
    "config": ("lr = 0.1", "lr = [0.1]", "config lr = .0.1. is neither number"),
    "toml": ("lr = 0.1", "lr = ", "its pyproject.toml cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_project_is_bad_input(what: str, make: Make, call: Call, tmp_path: Path) -> None:
    old, new, reason = BROKEN[what]
    code, _, error = call(make("plain", old, new))
    assert code == 2 and error.startswith("error: app = ") and "Traceback" not in error
    assert re.search(reason, error), error
    assert not (tmp_path / "runs").exists()


def test_other_bad_input(make: Make, call: Call, tmp_path: Path) -> None:
    for path, reason in [
        ("nowhere", "there is no such folder"),
        (str(tmp_path), "it has no pyproject.toml"),
        (__file__, "it is a file"),
    ]:
        code, _, error = call(path)
        assert code == 2 and error.startswith("error: app = ") and reason in error
    for words, reason in [
        (["--local.lr", "1"], "local.lr: means nothing to a Flower app"),
        (["--clients", "-1"], "clients = "),
        (["--failures", "maybe"], "failures = "),
    ]:
        code, _, error = call(make("plain"), *words)
        assert code == 2 and error.startswith(f"error: {reason}")
    code, _, error = call(make("talk"), "--rounds", "2")
    assert code == 2 and "rounds = 2: the app's config has no num-server-rounds" in error


def test_an_error_of_the_server_is_a_failure_with_its_traceback(make: Make, call: Call) -> None:
    app = make("talk")
    (app / "server.py").write_text(
        (app / "server.py").read_text().replace("    nodes = ", '    raise ValueError("my own")\n    nodes = ')
    )
    code, summary, error = call(app)
    assert (code, summary["status"], summary["error"]) == (1, "failed", "ValueError: my own") and "server.py" in error


def test_a_dry_run_starts_nothing(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--app", str(make("plain")), "--dry-run", "--rounds", "7", "--json", "--out", str(tmp_path / "runs")])
        == 0
    )
    plan = json.loads(capsys.readouterr().out)
    assert (plan["clients"], plan["config num-server-rounds"]) == (6, 7) and not (tmp_path / "runs").exists()
