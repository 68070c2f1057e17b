"""Faults that a review found, each as a test."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.config.stored import stored_config
from experiments.run import from_arrays, main, run
from fl_sim import Callback, Partition, load

X = np.linspace(-1, 1, 160, dtype=np.float32).reshape(80, 2)
Y = (X[:, 0] > 0).astype(np.int64)


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str) -> str:
    """The message of a call that must exit with 2 and leave nothing behind."""
    assert main([*words, "--out", str(tmp_path / "runs"), "--quiet", "--json"]) == 2
    out, err = capsys.readouterr()
    assert not (tmp_path / "runs").exists() and out == "" and err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--target", "2"], "target = 2"),
        (["--seed", "0,0"], "seed = '0,0'"),
        (["--seed", "-1"], "greater than or equal to 0"),
        (["--local.optimizer", "adam", "--local.momentum", "0.9"], "local.momentum = 0.9"),
        (["--data_dir", "/no/such/folder"], "data_dir = '/no/such/folder'"),
        (["--clients", "1438", "--partition.held_out", "0.2", "--personalize_steps", "2"], "partition.held_out = 0.2"),
        (
            ["--strategy", "flwr.serverapp.strategy:FedProx", "--strategy.proximal_mu", "1.0"],
            "strategy.proximal_mu = 1.0",
        ),
    ],
)
def test_refused_before_any_work(capsys, tmp_path, words, message) -> None:
    assert message in refused(capsys, tmp_path, *words)


@pytest.mark.parametrize("form", [list, Partition.of])
def test_a_partition_may_be_index_arrays(tmp_path, form) -> None:
    parts = form([np.arange(c, 64, 4) for c in range(4)])
    outcome = run(task=from_arrays(X, Y), model=torch.nn.Linear(2, 2), partition=parts, rounds=1, out=str(tmp_path))
    assert set(outcome.log.clients["client"]) == {0, 1, 2, 3} and set(outcome.log.clients["examples"]) == {16}
    assert "with objects (task, partition, model)" in (Path(outcome.summary["run_dir"]) / "config.toml").read_text()


@pytest.mark.parametrize(
    "parts, why", [([[0, 1], [1, 2]], "owned by one client"), ([[0], []], "own no sample"), ([[0], [999]], "0..63")]
)
def test_index_arrays_that_cannot_be(tmp_path, parts, why) -> None:
    with pytest.raises(ValueError, match=why):
        run(task=from_arrays(X, Y), model=torch.nn.Linear(2, 2), partition=parts, rounds=1, out=str(tmp_path))


def test_a_partition_function_may_return_index_arrays(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "own_parts.py").write_text(
        '"""No paper."""\nimport numpy as np\n\ndef thirds(task, clients=3, seed=0):\n    """Every third sample."""\n'
        "    return [np.arange(c, task.num_train, 3) for c in range(3)]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["--partition", "own_parts:thirds", "--rounds", "1", "--out", "runs", "--quiet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert load(summary["run_dir"]).clients["client"].nunique() == 3


def test_mistakes_with_objects_are_reported_before_any_work(tmp_path) -> None:
    task = from_arrays(X, Y)
    with pytest.raises(ValueError, match="callbacks"):
        run(task=task, model=torch.nn.Linear(2, 2), callbacks=[Callback], out=str(tmp_path / "no"))
    with pytest.raises(ValueError, match=r"model\.name.*shape \(2,\)"):
        run(task=task, model=torch.nn.Linear(7, 2), out=str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_a_metric_that_is_nan_is_a_null_column(tmp_path) -> None:
    nan = {"odd": lambda outputs, batch: outputs[:, 0] * float("nan")}
    outcome = run(task=from_arrays(X, Y), model=torch.nn.Linear(2, 2), rounds=1, metrics=nan, out=str(tmp_path))
    assert outcome.log.rounds["odd"].isna().all() and outcome.summary["status"] == "completed"


def test_the_model_can_be_read_while_the_run_goes_on(tmp_path) -> None:
    seen: list[float] = []

    class Look(Callback):
        def on_round_end(self, run, row) -> None:
            (folder,) = tmp_path.iterdir()
            seen.append(float(load(folder).model()["bias"].sum()) - float(run.model["bias"].sum()))

    run(task=from_arrays(X, Y), model=torch.nn.Linear(2, 2), rounds=2, callbacks=[Look()], out=str(tmp_path))
    assert seen == [0.0, 0.0, 0.0]


def test_ctrl_c_stops_a_run_and_says_so(capsys, tmp_path, monkeypatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("strategies.fedavg.FedAvg.server_step", interrupt)
    assert main(["--rounds", "2", "--out", str(tmp_path), "--quiet", "--json"]) == 130
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["status"], summary["stopped"], summary["error"], summary["rounds"]) == (
        "stopped",
        "interrupted",
        None,
        0,
    )


def test_steps_are_written_without_epochs() -> None:
    text = stored_config({"local.steps": 3}).to_toml()
    assert "steps = 3" in text and "epochs = " not in text


def test_flower_does_not_warn_of_our_own_settings(tmp_path: Path) -> None:
    shown = io.StringIO()
    terminal = logging.StreamHandler(shown)
    logging.getLogger("flwr").addHandler(terminal)
    try:
        words = ["--strategy", "flwr.serverapp.strategy:FedAvg", "--clients", "4", "--rounds", "1", "--quiet"]
        assert main([*words, "--out", str(tmp_path)]) == 0
    finally:
        logging.getLogger("flwr").removeHandler(terminal)
    assert "fraction_evaluate" not in shown.getvalue()
    [log] = tmp_path.glob("*/flower.log")
    assert "fraction_evaluate is set to 0.0" in log.read_text()  # what Flower said, for those who look
