"""Set metrics of whole runs: central and per client, on both engines, on devices and after a resume; and refusals."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clients.app import app
from clients.shares import as_partition
from experiments import run as command
from experiments.config.recipe_files import make
from experiments.deploy.server_app import ServeOptions, parse_configs, serve
from experiments.run import from_arrays, run
from experiments.runs.setup import build
from fl_sim import Task, load, rng
from fl_sim.errors import ConfigError
from fl_sim.learning.sets import set_checks
from fl_sim.logs.round_columns import MEASURED, VIRTUAL
from tests.conformance.in_process import InProcessGrid

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 4))
Y = DRAW.integers(0, 3, 60)
PARTS = [list(range(0, 6)), list(range(6, 30)), list(range(30, 47)), [47]]
"""Clients of unequal sizes; the last has no held-out sample."""
SETTINGS: dict[str, Any] = {
    "partition": as_partition([np.array(part) for part in PARTS], "index arrays", 48),
    "partition.held_out": 0.3,
    "rounds": 1,
    "dtype": "float64",
    "local.lr": 0.5,
    "personalize_steps": 1,
    "personalize_lr": 0.3,
}


def task() -> Task:
    return from_arrays(X[:48], Y[:48], x_test=X[48:], y_test=Y[48:], outputs=3)


def linear() -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Linear(4, 3)


class LastLogits:
    """An object as torchmetrics' are; its value depends on the order of blocks."""

    def reset(self) -> None:
        self.value = torch.zeros(3, dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.value = self.value / 2 + outputs.sum(0)
        outputs.zero_()  # it has a copy

    def compute(self) -> Tensor:
        return self.value


def spread(outputs: Tensor, targets: Tensor) -> Tensor:
    """A matrix (2, 3) of all outputs and targets."""
    result = torch.stack([outputs.square().sum(0), outputs.T @ targets.to(outputs.dtype)])
    outputs.zero_()
    return result


def by_hand(weight: Tensor, bias: Tensor, rows: Any) -> dict[str, Any]:
    """The set metrics of a linear model on some samples, in plain torch, as they are logged."""
    x, y = torch.from_numpy(X[rows]), torch.from_numpy(Y[rows])
    outputs = x @ weight.T + bias
    predicted = outputs.argmax(1)
    counts = [[int(((y == i) & (predicted == j)).sum()) for j in range(3)] for i in range(3)]
    return {
        "confusion": counts,
        "class_accuracy": [counts[k][k] / sum(counts[k]) if sum(counts[k]) else None for k in range(3)],
        "last": outputs.sum(0).tolist(),
        "spread": torch.stack([outputs.square().sum(0), outputs.T @ y.double()]).tolist(),
    }


def tuned(weight: Tensor, bias: Tensor, rows: Any) -> tuple[Tensor, Tensor]:
    """One step of SGD on all of these samples."""
    leaves = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    F.cross_entropy(torch.from_numpy(X[rows]) @ leaves[0].T + leaves[1], torch.from_numpy(Y[rows])).backward()
    first, second = (leaf.detach() - 0.3 * (torch.zeros(()) if leaf.grad is None else leaf.grad) for leaf in leaves)
    return first, second


def close(got: Any, right: Any) -> bool:
    if isinstance(right, list):
        return len(got) == len(right) and all(map(close, got, right))
    return got is None if right is None else got == pytest.approx(right, rel=1e-12)


def rows_of(folder: Any, table: str, **where: object) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (Path(folder) / f"{table}.jsonl").read_text().splitlines()]
    return [row for row in rows if all(row[k] == v for k, v in where.items())]


def by_key(folder: Any, table: str) -> dict[str, dict[str, Any]]:
    """The rows of a table without times and places, by round, phase and client."""
    plain = [
        {k: v for k, v in row.items() if k not in ("block", "padded_share", *VIRTUAL, *MEASURED)}
        for row in rows_of(folder, table)
    ]
    return {str([row["round"], row.get("phase"), row.get("client")]): row for row in plain}


@pytest.mark.parametrize("engine, size", [("loop", 2), ("vmap", 4), ("vmap", 3)])
def test_central_and_per_client_equal_plain_torch(engine: str, size: int, tmp_path: Path) -> None:
    mine = {"last": LastLogits(), "spread": spread, "confusion": "confusion", "class_accuracy": "class_accuracy"}
    more = {**SETTINGS, "engine": engine, "block_size": size, "out": str(tmp_path)}
    outcome = run(task=task(), model=linear(), set_metrics=mine, **more)
    setup = build(make(task=task(), model=linear(), **more))
    weight, bias = outcome.model["weight"], outcome.model["bias"]
    row = rows_of(outcome.log.path, "rounds")[-1]
    for name, right in by_hand(weight, bias, slice(48, 60)).items():
        assert close(row[name], right), name
    clients = rows_of(outcome.log.path, "clients", phase="personal")
    assert len(clients) == 4
    for client in clients:
        train, _ = setup.partition.sizes(client["client"])
        rows = setup.partition.client(client["client"])
        for suffix, model in (("_before", (weight, bias)), ("", tuned(weight, bias, rows[:train]))):
            for name, right in by_hand(*model, rows[train:]).items():
                right = right if len(rows) > train else None
                assert close(client[f"{name}{suffix}"], right), (client["client"], name, suffix)
    assert sorted(client["held_out"] for client in clients) == [0, 2, 5, 7]
    assert not any("spread" in k and k.startswith(("personal", "unseen")) for k in row)


def test_blocks_are_in_order_and_classes_need_no_common_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"last": LastLogits(), "spread": spread, "confusion": "confusion"}
    shared = {k: v for k, v in SETTINGS.items() if not k.startswith("personalize")}
    settings = {**shared, "partition": "iid", "validation": 0.2, "out": str(tmp_path)}
    for module in ("evaluate", "set_evaluation"):
        monkeypatch.setattr(f"fl_sim.engines.{module}.BLOCK", 5)
    outcome = run(task=task(), model=linear(), set_metrics=mine, **settings)
    weight, bias = outcome.model["weight"], outcome.model["bias"]
    outputs = torch.from_numpy(X[48:]) @ weight.T + bias
    row = rows_of(outcome.log.path, "rounds")[-1]
    assert close(row["last"], (outputs[:5].sum(0) / 4 + outputs[5:10].sum(0) / 2 + outputs[10:].sum(0)).tolist())
    right = by_hand(weight, bias, slice(48, 60))
    assert close(row["spread"], right["spread"]) and row["confusion"] == right["confusion"]
    held = build(make(task=task(), model=linear(), **settings)).validation["x"]
    right = by_hand(weight, bias, [int((torch.from_numpy(X) == x).all(1).nonzero()) for x in held])
    assert close(row["val_spread"], right["spread"]) and row["val_confusion"] == right["confusion"]


SMALL = "--task digits --model lr --clients 3 --partition.held_out 0.1 --personalize_steps 1 --quiet"
SMALL += " --personalize_every 1 --checkpoint_every 1 --set_metrics confusion,class_accuracy"


def test_a_resumed_run_and_real_devices_have_the_same_columns(tmp_path: Path) -> None:
    def main(words: str) -> None:
        assert command.main(words.split()) == 0

    main(f"{SMALL} --rounds 2 --engine loop --out {tmp_path}/whole")
    main(f"{SMALL} --engine loop --rounds 1 --out {tmp_path}/part")
    [whole], [part] = ([*(tmp_path / name).iterdir()] for name in ("whole", "part"))
    main(f"--resume {part} --rounds 2 --quiet")
    [config] = parse_configs([*SMALL.split(), "--rounds", "2", "--out", str(tmp_path / "devices")])
    options = ServeOptions(node_timeout_s=5.0, timeout_s=60.0)
    [(summary, error)] = serve([config], InProcessGrid.of(app, 3), options)
    assert error is None
    for table in ("rounds", "clients"):
        right = by_key(whole, table)
        assert by_key(part, table) == right and by_key(summary["run_dir"], table) == right
    frame = load(whole).rounds
    assert np.sum(frame["confusion"].iloc[-1]) == 359 and len(frame["class_accuracy"].iloc[-1]) == 10


def test_runs_of_one_batch_have_the_same_columns_too(tmp_path: Path) -> None:
    words = f"{SMALL} --rounds 1 --dtype float64 --engine vmap"
    assert command.main(f"{words} --vmap_over local.lr=.05,.5 --out {tmp_path}/both".split()) == 0
    for folder in (tmp_path / "both").iterdir():
        lr = load(folder).config["local"]["lr"]
        alone = tmp_path / f"alone{lr}"
        assert command.main(f"{words} --local.lr {lr} --out {alone}".split()) == 0
        [other] = alone.iterdir()
        for table in ("rounds", "clients"):
            for mine, right in zip(by_key(folder, table).values(), by_key(other, table).values(), strict=True):
                names = [k for k in right if "confusion" in k or "class_accuracy" in k]
                assert {k: mine[k] for k in names} == {k: right[k] for k in names}
                assert names or right["phase"] == "train"


@pytest.mark.parametrize(
    "given, message",
    [
        ("f1,auc", r"set_metrics = 'f1,auc': 'auc' is unknown .*; choose from f1, auroc, confusion"),
        ({"mine": "auc"}, r"set_metrics\['mine'\] = 'auc': must be one of f1, auroc"),
        ({"accuracy": spread}, "'accuracy': another metric fills the column 'accuracy'"),
        ({"a": spread, "val_a": spread}, "another metric fills the column 'val_a'"),
        ({"lr": spread}, "metric 'lr': rounds.jsonl has a column of this name already"),
        ({"held_out": spread}, "metric 'held_out': clients.jsonl has a column of this name already"),
        ({"class_accuracy": spread}, "rounds.jsonl has a column of this name already"),
        ({"a.shape": spread}, "must be text, not empty, and not end with '.shape'"),
        ({"mine": 3}, r"set_metrics\['mine'\] = 3: must be a function"),
        ({"mine": lambda o, t: {"f1": 1}}, r"'mine' fails on 12 samples, outputs \(12, 3\).* it gives dict; it must"),
        ({"mine": lambda o, t: o @ t}, r"'mine' fails on 12 samples, .*RuntimeError"),
        ({"mine": lambda o, t, n=[]: n.append(0) or len(n)}, "'mine' fails.* another value when it is called again"),
        ([spread], r"set_metrics = \[<function spread.*: give names, 'f1,auroc' or a list of them, or a dict"),
        (spread, "set_metrics = <function spread.*: give names"),
    ],
)
def test_refused_before_any_work(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(task=task(), model=linear(), set_metrics=given, out=str(tmp_path))
    assert not list(tmp_path.iterdir())


def refused(message: str, model: nn.Module, given: Mapping[str, object], data: Task, **settings: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        run(task=data, model=model, set_metrics=given, **settings)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    confusion = {"confusion": "confusion"}
    regression = from_arrays(X, X[:, :1].copy())
    refused("'confusion' needs classes, but the task is a regression", nn.Linear(4, 1), confusion, regression)
    two = from_arrays(X, (X[:, :1] > 0).astype(float), loss=lambda outputs, batch: (outputs - batch["y"]).abs()[:, 0])
    sigmoid = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    refused(r"'confusion' takes scores, but the model gives probabilities \(a sigmoid", sigmoid, confusion, two)
    soft = nn.Sequential(linear(), nn.Softmax(1))
    refused(r"'c' takes scores, but the model gives probabilities \(a softmax", soft, {"c": "calibration"}, task())
    monkeypatch.setattr(set_checks, "LIMIT", 12 * (3 * 4 + 8) - 1)  # three outputs of float32, a label of int64
    refused(
        "'s' keeps 0 MiB of outputs and targets of the test set .12 samples., and at most",
        linear(),
        {"s": spread},
        task(),
    )


def test_an_unknown_name_exits_2_and_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--task", "digits", "--set_metrics", "f2,auroc"]) == 2
    assert "choose from f1, auroc, confusion, calibration, class_accuracy" in capsys.readouterr().err
