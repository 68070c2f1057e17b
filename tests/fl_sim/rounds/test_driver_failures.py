"""Failures inside blocks: a user's loss, rule or strategy that fails for one client, on every engine."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.app import make_app
from experiments import run
from fl_sim import (
    Batch,
    Local,
    Loss,
    Partition,
    RoundFailed,
    RoundLog,
    SimulationGrid,
    Task,
    from_arrays,
    load,
    run_rounds,
    tree,
)
from fl_sim.engines.choose import ENGINES
from fl_sim.learning.measures import cross_entropy
from fl_sim.learning.rule import Draw, Metrics, Sizes, Streams
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.fedavg import FedAvg

CLIENTS, CULPRIT, MARK = 6, 3, 1000.0
every_engine = pytest.mark.parametrize("engine", ENGINES)


def marked(data: Mapping[str, Tensor]) -> bool:
    """Whether a batch is the culprit's; reading values so is impossible under vmap, as it may be in a user's code."""
    return bool((data["x"] == MARK).any())


def task(loss: Any = cross_entropy) -> Task:
    """Six clients of five samples; each sample of the culprit contains the mark."""
    draw = np.random.Generator(np.random.Philox(1))
    x, y = draw.normal(size=(30, 3)), np.arange(30) % 2
    x[CULPRIT * 5 : CULPRIT * 5 + 5, 0] = MARK
    return from_arrays(x, y, clients=np.repeat(np.arange(CLIENTS), 5), x_test=x[:5], y_test=y[:5], loss=loss)


def setup(strategy: FedAvg, engine: str, loss: Any = cross_entropy) -> tuple[SimulationGrid, Any]:
    torch.manual_seed(0)
    bound = Loss(nn.Linear(3, 2), task(loss), torch.float64)
    parts = Partition.of(np.split(np.arange(30), CLIENTS))
    app = make_app(bound, parts, {name_of(type(strategy)): type(strategy)})
    return SimulationGrid(app, CLIENTS, engine=engine, block_size=4), records.encode(bound.initial())


def survivors(strategy: FedAvg, grid: SimulationGrid, initial: Any) -> Tree:
    """One round of the same grid without the culprit: the expected result of a tolerant round."""

    class Without(type(strategy)):  # type: ignore[misc]
        def configure_train(self, *args: Any) -> Any:
            return [m for m in super().configure_train(*args) if m.metadata.dst_node_id != CULPRIT + 2]

    Without.__module__, Without.__qualname__ = type(strategy).__module__, type(strategy).__qualname__
    return records.decode(run_rounds(Without(), grid, initial, 1).arrays)


def check(strategy: FedAvg, engine: str, reason: str, path: Path, loss: Any = cross_entropy) -> RoundLog:
    """The culprit alone is named; with tolerance the others are pooled as if it had received no message."""
    grid, initial = setup(strategy, engine, loss)
    with pytest.raises(RoundFailed, match=f"(?s)^round 1, client {CULPRIT}, train: .*{reason}"):
        run_rounds(strategy, grid, initial, 1)
    with RoundLog.create(path, "run", "") as log:
        result = run_rounds(strategy, grid, initial, 1, log=log, failures="tolerate:0.2")
    assert (result.rows[1]["completed"], result.rows[1]["failed"]) == (5, 1)
    clients = load(log.path).clients
    assert clients[clients["status"] == "failed"]["client"].tolist() == [CULPRIT]
    expected = survivors(strategy, grid, initial)
    for k, value in records.decode(result.arrays).items():
        torch.testing.assert_close(value, expected[k], rtol=1e-9, atol=1e-12)
    return log


def raising(outputs: Tensor, batch: Tree) -> Tensor:
    if marked(batch):
        raise RuntimeError("an unreadable sample")
    return cross_entropy(outputs, batch)


def poisoning(outputs: Tensor, batch: Tree) -> Tensor:
    return torch.where(batch["x"][:, 0] == MARK, torch.nan, 1.0) * cross_entropy(outputs, batch)


def overflowing(outputs: Tensor, batch: Tree) -> Tensor:
    return torch.where(batch["x"][:, 0] == MARK, 1e300 * batch["x"][:, 0], 1.0).square() * cross_entropy(outputs, batch)


@every_engine
@pytest.mark.parametrize(
    ("loss", "reason"),
    [(raising, "Traceback.*unreadable sample"), (poisoning, "NaN or infinity in"), (overflowing, "NaN or infinity in")],
)
def test_a_loss_that_fails_for_one_client(loss: Any, reason: str, engine: str, tmp_path: Path) -> None:
    log = check(FedAvg(), engine, reason, tmp_path, loss)
    events = load(log.path).events
    fell_back = events[events["event"] == "fallback"]
    if engine == "vmap" and loss is raising:  # code that reads values cannot be batched: both blocks run again
        assert fell_back["block"].tolist() == [0, 1]
        assert all("its clients ran on the loop" in note for note in fell_back["note"])
    else:
        assert fell_back.empty


class Faulty(FedAvg):
    """FedAvg whose client half does something wrong on the culprit."""

    fault: Callable[[Tree, Metrics], Any]

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> Any:
        kept = list(batches["train"])
        reply, new, metrics = super().local_update(model, state, {"train": kept}, loss, local_)
        return type(self).fault(reply, metrics) if marked(kept[0].data) else (reply, new, metrics)


FAULTS: dict[str, tuple[Callable[[Tree, Metrics], Any], str]] = {
    "none": (lambda reply, metrics: None, "Traceback"),
    "no tensors": (lambda reply, metrics: (dict.fromkeys(reply), {}, metrics), "Traceback"),
    "shape": (
        lambda reply, metrics: ({**reply, "bias": torch.zeros(3, dtype=torch.float64)}, {}, metrics),
        "wrong shape: bias",
    ),
    "dtype": (
        lambda reply, metrics: ({k: v.float() for k, v in reply.items()}, {}, metrics),
        "wrong dtype: .* is torch.float32",
    ),
    "key": (lambda reply, metrics: ({"weight": reply["weight"]}, {}, metrics), r"wrong keys: missing \['bias'\]"),
    "nan": (lambda reply, metrics: (tree.scale(reply, float("nan")), {}, metrics), "NaN or infinity"),
    "metric": (lambda reply, metrics: (reply, {}, {"loss": torch.tensor(float("inf"))}), "loss is inf"),
    "weight": (
        lambda reply, metrics: (reply, {}, {**metrics, "num-examples": torch.tensor(float("nan"))}),
        "num-examples is nan",
    ),
    "many losses": (lambda reply, metrics: (reply, {}, {"loss": torch.zeros(5)}), "Traceback"),
    "plain number": (lambda reply, metrics: (reply, {}, {"loss": 0.5}), "Traceback"),
}


@every_engine
@pytest.mark.parametrize("name", FAULTS)
def test_a_rule_that_fails_for_one_client(name: str, engine: str, tmp_path: Path) -> None:
    Faulty.fault = FAULTS[name][0]
    check(Faulty(), engine, FAULTS[name][1], tmp_path)


class Unplanned(FedAvg):
    """FedAvg whose choice of batches fails for the culprit."""

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        if draw.client == CULPRIT:
            raise LookupError("no samples today")
        return super().streams(sizes, local, draw)


@every_engine
def test_a_rule_that_cannot_plan_for_one_client(engine: str, tmp_path: Path) -> None:
    check(Unplanned(), engine, "LookupError: no samples today", tmp_path)


class Weighted(FedAvg):
    """FedAvg whose clients report another number of examples than they have."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> Any:
        reply, new, metrics = super().local_update(model, state, batches, loss, local_)
        return reply, new, {**metrics, "num-examples": torch.tensor(-1.0)}


def test_a_client_is_weighted_by_its_samples_not_by_what_its_rule_reports() -> None:
    plain, weighted = [run_rounds(s, *setup(s, "vmap"), 1) for s in (FedAvg(), Weighted())]
    assert tree.digest(records.decode(plain.arrays)) == tree.digest(records.decode(weighted.arrays))


def test_a_client_without_samples_is_a_failure_with_a_weight_of_zero() -> None:
    bound = Loss(nn.Linear(3, 2), task(), torch.float64)
    app = make_app(bound, Partition.of([np.arange(5), np.arange(0), np.arange(5, 10)]))
    for engine in ENGINES:
        with pytest.raises(
            RoundFailed, match="round 1, client 1, train: weight = 0.0: the client has no training samples"
        ):
            run_rounds(FedAvg(), SimulationGrid(app, 3, engine=engine), records.encode(bound.initial()), 1)


def test_exit_codes_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text(
        "from strategies.fedavg import FedAvg\n"
        "class Broken(FedAvg):\n"
        "    def streams(self, sizes, local, draw):\n"
        "        if draw.client == 1 and draw.server_round == 2:\n"
        "            raise RuntimeError('broken in round 2')\n"
        "        return super().streams(sizes, local, draw)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    call = [
        "--strategy",
        "half:Broken",
        "--task",
        "synthetic",
        "--partition",
        "iid",
        "--clients",
        "5",
        "--rounds",
        "3",
        "--quiet",
    ]
    call += ["--out", str(tmp_path / "runs")]
    assert run.main(call) == 1
    error = capsys.readouterr().err
    assert "run failed: round 2, client 1, train: Traceback" in error and "RuntimeError: broken in round 2" in error
    [folder] = (tmp_path / "runs").iterdir()
    summary = load(folder).summary
    assert (summary["status"], summary["rounds"]) == ("failed", 1) and "broken in round 2" in summary["error"]
    assert load(folder).model().keys()
    assert run.main([*call, "--failures", "tolerate:0.2"]) == 0
    assert run.main([*call, "--failures", "tolerate:0.1"]) == 1
    assert run.main([*call, "--failures", "never"]) == 2
