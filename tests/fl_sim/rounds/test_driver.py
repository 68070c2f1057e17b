"""run_rounds: lines of the log, failures and their policy, callbacks, early stop."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from experiments.check.world import SIZES, TRAINING, UNSEEN, app_of, world
from fl_sim import Callback, RoundFailed, RoundLog, Run, SimulationGrid, load, run_rounds, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.rounds.callbacks import RunResult
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.strategy import Strategy
from strategies.fedavg import FedAvg

SETTINGS = {**TRAINING, "system.stragglers": 0.0}


def go(strategy: Strategy, log: RoundLog | None = None, rounds: int = 3, **options: Any) -> RunResult:
    grid = SimulationGrid(app_of(strategy), len(SIZES), holdout_clients=UNSEEN, block_size=4)
    start = records.encode(world()[0].initial())
    return run_rounds(
        strategy, grid, start, rounds, train_config=records.config({**SETTINGS, "rounds": rounds}), log=log, **options
    )


@dataclass
class Sick(Strategy):
    """After ``Slowing`` lowered the learning rate, clients fail whose first batch has at most ``smallest`` samples."""

    smallest: int = 1

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Raises where the learning rate is a tenth."""
        kept = list(batches["train"])
        if local_.lr < 0.01 and len(kept[0].data["y"]) <= self.smallest:
            raise ArithmeticError(f"only {len(kept[0].data['y'])} samples")
        return super().local_update(model, state, {"train": kept}, loss, local_)


class Slowing(Callback):
    """Lowers the learning rate that clients get to a tenth, from round 2 on."""

    def on_round_start(self, run: Run) -> None:
        if run.round >= 2:
            run.train_config["local.lr"] = 0.005


@pytest.fixture
def log(tmp_path: Path) -> RoundLog:
    return RoundLog.create(tmp_path, "test", "seed = 0\n")


def test_round_0_is_the_initial_model_and_each_round_has_one_line(log: RoundLog) -> None:
    strategy = FedAvg()
    strategy.cohort = 5
    result = go(strategy, log)
    read = load(log.path)
    assert [row["round"] for row in result.rows] == read.rounds["round"].tolist() == [0, 1, 2, 3]
    assert read.rounds["digest"].tolist() == [row["digest"] for row in result.rows]
    assert read.rounds["digest"][0] == tree.digest(world()[0].initial()) and read.rounds["digest"][3] == tree.digest(
        read.model()
    )
    assert read.rounds["clients"].tolist()[1:] == read.rounds["completed"].tolist()[1:] == [5, 5, 5]
    size = tree.num_bytes(world()[0].initial())
    assert set(read.rounds["bytes_down"][1:]) == set(read.rounds["bytes_up"][1:]) == {5 * size}
    rows = read.clients[read.clients["phase"] == "train"]
    for server_round in (1, 2, 3):
        row, mine = read.rounds.iloc[server_round], rows[rows["round"] == server_round]
        assert len(mine) == 5 and set(mine["status"]) == {"completed"}
        assert row["examples"] == mine["examples"].sum() and row["steps"] == mine["steps"].sum()
        assert row["train_loss"] == pytest.approx(
            (mine["loss"] * mine["examples"]).sum() / mine["examples"].sum(), rel=1e-12
        )
        assert (mine["weight"] == mine["examples"]).all() and (mine["update_norm"] > 0).all()


def test_the_update_norm_is_that_of_the_global_models_change() -> None:
    models: list[Tree] = []

    class Keep(Callback):
        def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
            models.append(run.model)

    rows = go(FedAvg(), callbacks=[Keep()]).rows
    changes = [float(tree.norm(tree.sub(b, a))) for a, b in pairwise(models)]
    assert [row["update_norm"] for row in rows] == [0.0, *changes] and min(changes) > 0


def test_a_client_that_raises_fails_the_run_with_its_traceback_id_and_round(log: RoundLog) -> None:
    with pytest.raises(
        RoundFailed, match=r"round 2, client 0, train: Traceback (?s:.*)ArithmeticError: only 1 samples"
    ):
        go(Sick(), log, callbacks=[Slowing()])
    log.close()
    read = load(log.path)
    assert (
        read.rounds["round"].tolist() == [0, 1] and tree.digest(read.model()) == read.rounds["digest"][1]
    )  # the last good model
    failed = read.clients[read.clients["status"] == "failed"]
    assert failed[["round", "client"]].to_numpy().tolist() == [[2, 0]] and "ArithmeticError" in failed["reason"].iloc[0]
    assert {"client_failed", "run_failed"} <= set(read.events["event"])


def test_tolerated_failures_are_logged_and_left_out_of_the_mean(log: RoundLog) -> None:
    # Of 8 clients a quarter are two: clients 0 and 1, who train on one sample each, fail in rounds 2 and 3.
    result = go(Sick(), log, failures="tolerate:0.25", callbacks=[Slowing()])
    assert [row.get("failed", 0) for row in result.rows] == [0, 0, 2, 2] and result.rows[2]["completed"] == 6

    class Without(FedAvg):
        def configure_train(self, server_round: int, *args: Any) -> list[Message]:  # type: ignore[override]
            messages = list(super().configure_train(server_round, *args))
            return messages if server_round == 1 else messages[2:]

    others = go(Without(), callbacks=[Slowing()])
    a, b = (records.decode(r.arrays) for r in (result, others))
    assert float(tree.norm(tree.sub(a, b))) < 1e-12 * float(tree.norm(a))  # as if they had received no message


@pytest.mark.parametrize(
    "smallest, failures, says",
    [(4, "tolerate:0.125", r"\(2 of 8 failed, 1 allowed\)"), (99, "tolerate:1", "all 8 clients failed")],
)
def test_more_failures_than_tolerated_fail_the_run(log: RoundLog, smallest: int, failures: str, says: str) -> None:
    with pytest.raises(RoundFailed, match=says):
        go(Sick(smallest=smallest), log, failures=failures, callbacks=[Slowing()])
    assert load(log.path).rounds["round"].tolist() == [0, 1]


@pytest.mark.parametrize("text", ["", "ignore", "tolerate", "tolerate:2", "tolerate:nan", "tolerate:-0.1"])
def test_unknown_policies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"failures = {text!r}")):
        go(FedAvg(), failures=text)


class Poison(FedAvg):
    """A server step that spoils the model in round 2."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """NaN in round 2."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        spoiled = {k: v * float("nan") for k, v in records.decode(arrays).items()}
        return (records.encode(spoiled) if server_round == 2 else arrays), metrics


def test_a_new_model_that_is_not_finite_is_never_accepted(log: RoundLog) -> None:
    with pytest.raises(RoundFailed, match="round 2: the strategy's new model has NaN"):
        go(Poison(), log)
    assert all(bool(torch.isfinite(v).all()) for v in load(log.path).model().values())


class Recorder(Callback):
    """Records the hooks that were called, with their round."""

    def __init__(self, stop_at: int = -1, fail_in: str = "") -> None:
        self.calls: list[str] = []
        self.stop_at, self.fail_in = stop_at, fail_in

    def note(self, hook: str, run: Run) -> None:
        self.calls.append(f"{hook} {run.round}")
        if hook == self.fail_in:
            raise KeyError("mine")

    def on_run_start(self, run: Run) -> None:
        self.note("run_start", run)

    def on_round_start(self, run: Run) -> None:
        self.note("round_start", run)

    def on_block(self, run: Run, result: Any) -> None:
        self.note("block", run)

    def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
        self.note("evaluation", run)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        self.note("round_end", run)
        row["mine"] = run.round * 10
        if run.round == self.stop_at:
            run.stop("enough")

    def on_run_end(self, run: Run) -> None:
        self.note("run_end", run)


def test_callbacks_see_each_step_add_columns_and_stop(log: RoundLog) -> None:
    recorder = Recorder(stop_at=2)
    result = go(
        FedAvg(),
        log,
        rounds=5,
        callbacks=[recorder],
        evaluate_fn=lambda r, a: MetricRecord({"loss": 1.0}) if r % 2 == 0 else None,
    )
    assert recorder.calls == [
        *("run_start 0", "evaluation 0", "round_end 0"),
        *("round_start 1", "block 1", "block 1", "round_end 1"),
        *("round_start 2", "block 2", "block 2", "evaluation 2", "round_end 2"),
        "run_end 2",
    ]
    assert result.stopped == "enough" and load(log.path).rounds["mine"].tolist() == [0, 10, 20]
    assert load(log.path).rounds["loss"].tolist()[::2] == [1.0, 1.0]


@pytest.mark.parametrize("hook", ["run_start", "round_start", "block", "round_end"])
def test_an_exception_in_a_callback_fails_the_run(hook: str) -> None:
    recorder = Recorder(fail_in=hook)
    with pytest.raises(KeyError, match="mine"):
        go(FedAvg(), callbacks=[recorder])
    assert recorder.calls[-1].startswith("run_end")


def test_a_changed_learning_rate_reaches_the_clients_and_the_log() -> None:
    plain, slowed = go(FedAvg()), go(FedAvg(), callbacks=[Slowing()])
    assert plain.rows[1]["digest"] == slowed.rows[1]["digest"] and plain.rows[2]["digest"] != slowed.rows[2]["digest"]
    assert [row["lr"] for row in slowed.rows[1:]] == [0.05, 0.005, 0.005]


def test_lines_are_json_without_nan(log: RoundLog) -> None:
    go(FedAvg(), log, evaluate_fn=lambda r, a: MetricRecord({"loss": float("nan")}))
    for line in (log.path / "rounds.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert row["loss"] is None
