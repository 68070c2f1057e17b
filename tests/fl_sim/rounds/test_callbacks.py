"""Callbacks: called in order; may add columns, change the learning rate, stop; an exception fails the run."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from experiments import run as command
from experiments.check.world import SIZES, TRAINING, app_of, world
from fl_sim import Callback, RoundFailed, RoundLog, Run, SimulationGrid, load, run_rounds, tree
from fl_sim.engines.results import BlockResult
from fl_sim.rounds import round_row
from fl_sim.rounds.callbacks import RunResult
from fl_sim.wire import records
from strategies.fedavg import FedAvg

HOOKS = ("on_run_start", "on_round_start", "on_block", "on_evaluation", "on_round_end", "on_run_end")


class Recorder(Callback):
    """Records each hook and its round; raises in the hook ``breaks``."""

    def __init__(self, breaks: str = "", at: int = 1) -> None:
        self.calls: list[tuple[str, int]] = []
        self.breaks, self.at = breaks, at

    def note(self, hook: str, run: Run) -> None:
        self.calls.append((hook, run.round))
        if hook == self.breaks and run.round >= self.at:
            raise ZeroDivisionError(f"in {hook}")

    def on_run_start(self, run: Run) -> None:
        assert run.model and not run.rows
        self.note("on_run_start", run)

    def on_round_start(self, run: Run) -> None:
        self.note("on_round_start", run)

    def on_block(self, run: Run, result: BlockResult) -> None:
        assert result.clients
        self.note("on_block", run)

    def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
        assert row["loss"] is not None and row["round"] == run.round
        self.note("on_evaluation", run)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        assert row["digest"] == tree.digest(run.model)
        self.note("on_round_end", run)

    def on_run_end(self, run: Run) -> None:
        self.note("on_run_end", run)


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
    """Only round 0 and even rounds are evaluated."""
    return None if server_round % 2 else MetricRecord({"loss": 1.0})


def go(
    *callbacks: Callback, log: RoundLog | None = None, rounds: int = 2, settings: Any = None, **more: Any
) -> RunResult:
    """A few rounds of the small world."""
    grid = SimulationGrid(app_of(FedAvg()), len(SIZES), block_size=4)
    strategy = more.pop("strategy", FedAvg())
    initial, train = (
        records.encode(world()[0].initial()),
        records.config({**TRAINING, "system.stragglers": 0.0, **(settings or {})}),
    )
    return run_rounds(
        *(strategy, grid, initial, rounds),
        **{"train_config": train, "evaluate_fn": evaluate, "log": log, "callbacks": callbacks, **more},
    )


def test_every_hook_is_called_in_order() -> None:
    one, two = Recorder(), Recorder()
    go(one, two)
    blocks = [("on_block", 1)] * 3  # ten clients in blocks of four
    assert one.calls == two.calls
    assert one.calls == [
        ("on_run_start", 0), ("on_evaluation", 0), ("on_round_end", 0),
        ("on_round_start", 1), *blocks, ("on_round_end", 1),
        ("on_round_start", 2), *[("on_block", 2)] * 3, ("on_evaluation", 2), ("on_round_end", 2),
        ("on_run_end", 2),
    ]  # fmt: skip


def test_evaluation_on_clients_counts_as_one() -> None:
    class Evaluated(Callback):
        def on_evaluation(self, run: Run, row: dict[str, Any]) -> None:
            seen.append({k: v for k, v in row.items() if k.startswith("evaluate_")})

    seen: list[dict[str, Any]] = []
    strategy = FlowerFedAvg(fraction_train=0.5, fraction_evaluate=1.0)
    go(Evaluated(), rounds=1, strategy=strategy)
    assert len(seen) == 2 and seen[1]["evaluate_accuracy"] > 0


class Looks(Callback):
    """Records the digest, or its absence, at the end of each round."""

    def __init__(self, reads_digest: bool) -> None:
        self.reads_digest, self.seen = reads_digest, list[Any]()

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        self.seen.append(row["digest"])


@pytest.mark.parametrize("reads", [False, True])
def test_a_round_waits_for_its_digest_only_where_it_is_read(reads: bool, tmp_path: Path) -> None:
    looks = Looks(reads)
    with RoundLog.create(tmp_path, "run", "") as log:
        result = go(looks, log=log, rounds=4)
    lines = load(log.path).rounds
    assert [digest is None for digest in looks.seen] == [
        False,
        not reads,
        False,
        not reads,
        False,
    ]  # even rounds are evaluated
    assert [row["digest"] for row in result.rows] == lines["digest"].tolist() and lines["digest"].nunique() == 5


def test_a_line_that_cannot_be_written_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = RoundLog.round

    def full(log: RoundLog, row: dict[str, Any]) -> None:
        if row["round"] == 3:
            raise OSError("no space left")
        write(log, row)

    monkeypatch.setattr(RoundLog, "round", full)
    with RoundLog.create(tmp_path, "run", "") as log, pytest.raises(OSError, match="no space left"):
        go(log=log, rounds=9)
    assert load(log.path).rounds["round"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_in_a_hook_fails_the_run(hook: str, tmp_path: Path) -> None:
    recorder = Recorder(breaks=hook, at=0 if hook == "on_run_start" else 2)
    with RoundLog.create(tmp_path, "run", "") as log, pytest.raises(ZeroDivisionError, match=f"in {hook}"):
        go(recorder, log=log, rounds=3 if hook != "on_run_end" else 2)
    assert recorder.calls[-1][0] == "on_run_end" and recorder.calls[-2][0] in (hook, "on_round_end")
    assert load(log.path).rounds["round"].tolist() == (
        [] if hook == "on_run_start" else [0, 1, 2] if hook == "on_run_end" else [0, 1]
    )
    assert load(log.path).model().keys() == world()[0].initial().keys()


def test_leaving_by_sys_exit_is_a_failure_too() -> None:
    class Leaving(Callback):
        def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
            raise SystemExit(0)

    with pytest.raises(RoundFailed, match=r"called sys.exit\(0\)"):
        go(Leaving())


class Cooling(Callback):
    """Halves the learning rate each round, adds a column, and stops at the third round."""

    def on_round_start(self, run: Run) -> None:
        run.train_config["local.lr"] = 0.08 / 2**run.round

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        row["cooled"] = run.round > 0
        if run.round == 3:
            run.stop("cold enough")


def test_columns_learning_rate_and_stop(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", "") as log:
        result = go(Cooling(), log=log, rounds=9)
    assert (result.stopped, len(result.rows)) == ("cold enough", 4)
    table = load(log.path).rounds
    assert table["cooled"].tolist() == [False, True, True, True]
    assert table["lr"].tolist()[1:] == [0.04, 0.02, 0.01]
    clients = load(log.path).clients
    first, last = [clients[clients["round"] == n]["update_norm"].mean() for n in (1, 3)]
    assert last < first / 2  # the clients really took smaller steps


def test_a_rate_of_zero_from_a_callback_reaches_every_client() -> None:
    class Frozen(Callback):
        def on_round_start(self, run: Run) -> None:
            run.train_config["local.lr"] = 0.0

    result = go(Frozen(), settings={"local.momentum": 0.0, "local.weight_decay": 0.0})
    assert [row["update_norm"] for row in result.rows] == [0.0, 0.0, 0.0] and result.rows[1]["digest"] == result.rows[
        0
    ]["digest"]


def test_the_rate_in_the_log_follows_the_schedule() -> None:
    rows = go(rounds=4, settings={"rounds": 4, "local.lr": 0.4, "local.lr_schedule": "step"}).rows
    assert [row["lr"] for row in rows[1:]] == pytest.approx([0.4, 0.4, 0.04, 0.004])  # done: 0, 1/3, 2/3, 1


@pytest.mark.parametrize("reason", ["enough", ""])
def test_stopping_needs_no_reason(reason: str) -> None:
    class Stopping(Callback):
        def on_run_start(self, run: Run) -> None:
            run.stop(reason)

    result = go(Stopping())
    assert len(result.rows) == 1 and result.stopped == (reason or "stopped")


def test_a_stopped_run_is_reported_as_stopped_and_is_no_failure(tmp_path: Path) -> None:
    class Stopping(Callback):
        def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
            if row["round"] == 2:
                run.stop("target reached")

    outcome = command.run(
        task="synthetic", partition="iid", clients=3, rounds=5, out=str(tmp_path), callbacks=[Stopping()]
    )
    summary = json.loads((Path(outcome.summary["run_dir"]) / "summary.json").read_text())
    assert (summary["status"], summary["stopped"], summary["rounds"], summary["error"]) == (
        "stopped",
        "target reached",
        2,
        None,
    )
    assert command.report([outcome.summary], quiet=True, as_json=False) == 0


def test_numbers_of_a_users_own_hide_no_documented_column() -> None:
    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"round": 99, "digest": 1.0, "test_accuracy": 0.75, "eval-loss": 0.5, "f1": 0.3})

    grid = SimulationGrid(app_of(FedAvg()), 2)
    [row, _] = run_rounds(FedAvg(), grid, records.encode(world()[0].initial()), 1, evaluate_fn=central).rows
    assert (row["round"], row["central_round"], row["central_digest"], row["f1"]) == (0, 99, 1.0, 0.3)
    assert (row["accuracy"], row["test_accuracy"], row["loss"]) == (0.75, 0.75, 0.5) and len(row["digest"]) == 64


@pytest.mark.parametrize(
    ("metrics", "accuracy"),
    [
        ({"test_acc": 87.5}, None),  # a percentage is no fraction
        ({"acc": 0.5, "test_acc": 0.6}, None),
        ({"accuracy": 0.5, "test_acc": 0.6}, 0.5),
        ({"val_acc": 0.5}, None),
        ({"Centralized_Accuracy": 0.5}, 0.5),
        ({"server_eval_acc": 1}, 1),
    ],
)
def test_only_a_name_of_the_same_meaning_fills_accuracy(metrics: dict[str, Any], accuracy: float | None) -> None:
    assert round_row.of_central(metrics).get("accuracy") == accuracy
