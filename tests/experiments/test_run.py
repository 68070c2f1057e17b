"""The command line: exit codes, JSON, folders, repeating a run; and ``run(...)`` from Python."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.run import from_arrays, main, run
from fl_sim import Callback, RoundFailed, load, tree
from strategies.fedavg import FedAvg

SMALL = ["--clients", "6", "--cohort", "3", "--rounds", "2"]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, last line of stdout as JSON, stderr)."""
    code = main([*words, "--json", "--quiet"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.strip() else {}, err


def test_a_run_reports_its_result(capsys, tmp_path) -> None:
    code, summary, _ = call(capsys, *SMALL, "--out", str(tmp_path), "--target", "0.01")
    log = load(summary["run_dir"])
    assert code == 0 and summary["status"] == "completed" and summary["rounds"] == 2
    assert Path(summary["run_dir"]).parent == tmp_path and len(list(tmp_path.iterdir())) == 1
    assert log.rounds["round"].tolist() == [0, 1, 2]
    last = log.rounds.iloc[-1]
    assert (
        summary["accuracy"] == last["accuracy"]
        and summary["loss"] == last["loss"]
        and summary["digest"] == last["digest"]
    )
    assert summary["digest"] == tree.digest(log.model())  # SHA-256 over the final arrays
    assert summary["rounds_to_target"] == int(log.rounds.loc[log.rounds["accuracy"] >= 0.01, "round"].min())
    model_bytes = 4 * (64 * 64 + 64 + 64 * 10 + 10)  # the mlp on 8 x 8 digits, float32
    assert summary["bytes_down"] == summary["bytes_up"] == 2 * 3 * model_bytes


def test_config_toml_repeats_the_run(capsys, tmp_path) -> None:
    words = [
        *SMALL,
        "--strategy",
        "fedprox",
        "--strategy.mu",
        "0.5",
        "--local.momentum",
        "0.9",
        "--system.stragglers",
        "0.4",
        "--local.epochs",
        "2",
    ]
    _, first, _ = call(capsys, *words, "--out", str(tmp_path))
    code, second, _ = call(capsys, f"{first['run_dir']}/config.toml")
    assert code == 0 and second["digest"] == first["digest"] and second["run_dir"] != first["run_dir"]


def test_several_runs_end_in_one_object_and_a_folder_of_their_own(capsys, tmp_path) -> None:
    assert (
        main(
            [
                *SMALL,
                "--strategy",
                "fedavg,reptile",
                "--strategy.epsilon",
                "1.0",
                "--seed",
                "0..1",
                "--out",
                str(tmp_path),
                "--json",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    both = json.loads(out.splitlines()[-1])
    assert both["status"] == "completed"
    assert [(r["strategy"], r["seed"]) for r in both["runs"]] == [
        ("fedavg", 0),
        ("fedavg", 1),
        ("reptile", 0),
        ("reptile", 1),
    ]
    assert len({r["run_dir"] for r in both["runs"]}) == 4
    compare = [p for p in tmp_path.iterdir() if p.name.startswith("compare")]
    assert len(compare) == 1 and (compare[0] / "curves.png").stat().st_size > 1000
    assert str(compare[0] / "curves.png") in out and "+-" in out  # the picture's path, and a spread over seeds


def test_same_seed_same_bits_other_seed_others(capsys, tmp_path) -> None:
    digests = [call(capsys, *SMALL, "--out", str(tmp_path), "--seed", seed)[1]["digest"] for seed in ("0", "0", "1")]
    assert digests[0] == digests[1] != digests[2]


def test_the_partition_has_a_seed_of_its_own(capsys, tmp_path) -> None:
    words = [*SMALL, "--partition", "dirichlet", "--dry_run"]
    plans = [call(capsys, *words, *more)[1] for more in ([], ["--seed", "5"], ["--partition.seed", "5"])]
    sizes = [(p["samples_min"], p["samples_median"], p["samples_max"]) for p in plans]
    assert sizes[0] == sizes[1] != sizes[2]


def test_dry_run_plans_and_writes_nothing(capsys, tmp_path) -> None:
    code, plan, _ = call(
        capsys,
        "--dry-run",
        "--clients",
        "10",
        "--cohort",
        "4",
        "--local.batch-size",
        "16",
        "--out",
        str(tmp_path / "no"),
    )
    assert code == 0 and not (tmp_path / "no").exists()
    assert plan["clients"] == 10 and plan["cohort"] == 4 and plan["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    assert plan["samples_min"] == 143 and plan["samples_max"] == 144  # 1438 training digits over 10
    assert (
        plan["steps_max"] == 9 and plan["bytes_down_per_round"] == 4 * 4 * plan["parameters"]
    )  # ceil(144 / 16); 4 clients, 4 bytes


@pytest.mark.parametrize(
    "words, names",
    [
        (["--local.lrr", "0.1"], ["local.lrr", "local.lr"]),
        (["--local.lr", "nan"], ["local.lr", "nan"]),
        (["--cohort", "11", "--clients", "10"], ["cohort", "11", "10"]),
        (["--clients", "100000"], ["clients", "100000"]),
        (["--personalize_steps", "3"], ["personalize_steps", "partition.held_out"]),
        (["--strategy", "fedavgg"], ["fedavgg", "fedavg"]),
        (["--strategy", "fedavg", "--strategy.mu", "1"], ["strategy.mu"]),
        (["--strategy", "maml", "--local.epochs", "2"], ["local.epochs", "maml"]),
        (["--local.epochs", "1", "--local.steps", "1"], ["local.epochs", "local.steps"]),
        (["--failures", "tolerate:2"], ["failures", "tolerate:2"]),
        (["--device", "cuda:99"], ["device", "cuda:99"]),
        (["--task", "mnist", "--data_dir", "/nonexistent/folder"], ["data_dir", "/nonexistent/folder"]),
        (["--model", "lenet"], ["lenet", "8"]),
        (["--augment", "--task", "sinusoid"], ["augment", "sinusoid"]),
        (["no-such-recipe"], ["no-such-recipe", "quickstart"]),
    ],
)
def test_bad_input_is_refused_before_any_work(capsys, tmp_path, words, names) -> None:
    out = [] if words[0] == "no-such-recipe" else ["--out", str(tmp_path / "runs")]
    code, summary, err = call(capsys, *words, *out)
    assert code == 2 and summary == {} and not (tmp_path / "runs").exists()
    assert err.startswith("error: ") and "Traceback" not in err
    assert all(name in err for name in names), err


def test_a_failed_run_exits_1_and_keeps_the_last_good_model(capsys, tmp_path, monkeypatch) -> None:
    """Round 3 of a strategy in the current folder fails; the model of round 2 is kept."""
    (tmp_path / "fails_in_round_3.py").write_text(
        '"""No paper."""\nfrom strategies.base.strategy import Strategy\n\nclass Mine(Strategy):\n    """Fails."""\n\n'
        "    def server_step(self, model, pooled, server_round):\n"
        "        assert server_round < 3, 'enough'\n        return pooled\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the current folder
    code, summary, err = call(capsys, "--strategy", "fails_in_round_3:Mine", "--rounds", "5", "--out", "runs")
    assert (code, summary["status"], summary["rounds"]) == (1, "failed", 2) and "enough" in summary["error"]
    log = load(summary["run_dir"])
    assert tree.digest(log.model()) == log.rounds["digest"].iloc[-1] and "the last good model (round 2)" in err
    assert log.rounds["round"].tolist() == [0, 1, 2]


class Mine(FedAvg):
    """Half a step."""

    def server_step(self, model, pooled, server_round):
        """Halfway."""
        return tree.lerp(model, pooled, 0.5)


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """60 points in the plane, two classes by the sign of x0, owned by three clients called a, b, c."""
    x = np.stack([np.linspace(-1, 1, 60), np.cos(np.arange(60))], axis=1).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64), np.array(["a", "b", "c"])[np.arange(60) % 3]


def test_objects_from_a_notebook(tmp_path) -> None:
    """The strategy, the model and the task are objects; user metrics become columns; callbacks see each round."""
    x, y, ids = points()
    seen: list[int] = []

    class Watch(Callback):
        def on_round_end(self, run, row) -> None:
            seen.append(row["round"])

    outcome = run(
        strategy=Mine(),
        model=torch.nn.Linear(2, 2),
        task=from_arrays(x, y, clients=ids, test_share=0.0, x_test=x, y_test=y),
        rounds=5,
        local={"lr": 1.0, "epochs": 10},
        callbacks=[Watch()],
        metrics={"margin": lambda outputs, batch: (outputs[:, 1] - outputs[:, 0]).abs()},
        out=str(tmp_path),
    )
    assert seen == [0, 1, 2, 3, 4, 5] and outcome.summary["status"] == "completed"
    assert outcome.log.rounds["margin"].notna().all() and outcome.log.rounds["accuracy"].iloc[-1] > 0.9  # separable
    assert outcome.log.clients["client"].nunique() == 3 and set(outcome.log.clients["examples"]) == {20}
    assert set(outcome.model) == {"weight", "bias"}


def test_a_failed_run_raises_in_python(tmp_path) -> None:
    x, y, ids = points()

    class Broken(Callback):
        def on_round_start(self, run) -> None:
            run.train_config["local.lr"] = 1e38  # the first update overflows float32

    wrong = torch.nn.Linear(2, 2)  # one drawn at random may have all right, and then has no gradient
    wrong.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), "bias": torch.zeros(2)})
    with pytest.raises(RoundFailed, match="round 1, client"):
        run(model=wrong, task=from_arrays(x * 1e6, y, clients=ids), rounds=2, callbacks=[Broken()], out=str(tmp_path))


def test_regression_has_no_accuracy(tmp_path) -> None:
    x, _, ids = points()
    outcome = run(
        model=torch.nn.Linear(2, 1),
        task=from_arrays(x, x[:, 0] * 2, clients=ids),
        rounds=20,
        local={"lr": 0.3},
        out=str(tmp_path),
    )
    assert outcome.log.rounds["accuracy"].isna().all() and outcome.summary["accuracy"] is None
    assert (
        outcome.summary["loss"] < 0.01 < outcome.log.rounds["loss"].iloc[0]
    )  # y is linear in x: the squared error vanishes


def test_a_name_taken_by_a_column_is_no_metric_and_a_module_no_loss(tmp_path) -> None:
    def first(outputs, batch):
        return outputs[:, 0]

    with pytest.raises(ValueError, match="digest"):
        run(metrics={"digest": first}, rounds=1, out=str(tmp_path))
    with pytest.raises(ValueError, match=r"metric 'weight': clients\.jsonl has a column of this name"):
        run(metrics={"weight": first}, rounds=1, out=str(tmp_path))
    task = from_arrays(np.ones((20, 2)), np.arange(20) % 2, loss=torch.nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="the loss is a module, CrossEntropyLoss; give a function: lambda outputs"):
        run(task=task, model="lr", rounds=1, out=str(tmp_path))
    for name in ("loss", "lr", "held_out"):  # a task's own metrics too
        task = from_arrays(np.ones((20, 2)), np.arange(20) % 2, metrics={name: first})
        with pytest.raises(ValueError, match=f"metric '{name}': "):
            run(task=task, rounds=1, out=str(tmp_path))
