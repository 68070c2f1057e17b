"""A hostile device: each field of its reply is checked within the failure policy, and the others' round goes on."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from fl_sim import RoundFailed, RoundLog, load, run_rounds
from fl_sim.grids.deployed import DeployedGrid
from fl_sim.grids.no_answer import LATE
from strategies.fedavg import FedAvg
from tests.conformance.in_process import InProcessGrid
from tests.fl_sim.grids.untrusted_replies.hostile import (
    ARRAYS,
    EXAMPLES,
    INTRODUCTIONS,
    NUMBERS,
    Tamper,
    entries,
    honest,
    leaves,
)

START = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "n": Array(np.zeros(2, np.int64))})
CULPRIT, CLIENTS = 2, 4
NODE = 1002


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.grids.nodes.POLL_S", 0.01)


def devices(tamper: Tamper | None = None, introduction: dict[str, Any] | None = None) -> InProcessGrid:
    """Four devices; ``tamper`` changes the training replies of one, ``introduction`` its answer to the query."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        facts = {"partition-id": client, "examples": EXAMPLES, "held-out": 5, "python": "3", "kind": "a", "client": 9}
        facts |= introduction or {} if client == CULPRIT else {}
        return Message(
            RecordDict({"node": ConfigRecord({k: v for k, v in facts.items() if v is not None})}), reply_to=message
        )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = honest(message.content)
        if tamper is not None and context.node_config["partition-id"] == CULPRIT:
            tamper(content)
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        numbers = {"num-examples": EXAMPLES, "steps": 1, "held_out": 5.0, "loss_before": 1.0, "loss": 0.5}
        facts = {"num-bytes": 0, "weight": float(EXAMPLES)}
        content = RecordDict({"metrics": MetricRecord(numbers), "facts": ConfigRecord(facts)})
        if tamper is not None and context.node_config["partition-id"] == CULPRIT:
            tamper(content)
        return Message(content, reply_to=message)

    return InProcessGrid(app, {1000 + c: c for c in range(CLIENTS)})


def rounds(
    grid: InProcessGrid, failures: str, log: RoundLog | None = None, strategy: Any = None, count: int = 1
) -> Any:
    allowed = 0 if failures == "raise" else CLIENTS - 1
    deployed = DeployedGrid(grid, CLIENTS, {}, allowed_missing=allowed, node_timeout_s=0.05, timeout_s=5, block_size=2)
    return run_rounds(strategy or FedAvg(), deployed, START, count, log=log, failures=failures)


@pytest.mark.parametrize("kind", [*ARRAYS, *NUMBERS])
def test_a_hostile_reply_is_its_clients_failure_and_changes_nothing_else(kind: str, tmp_path: Path) -> None:
    """The others send the model plus 1, so that their mean is 1 in every place, whatever the culprit sends."""
    tamper, reason = {**ARRAYS, **NUMBERS}[kind]
    with RoundLog.create(tmp_path, "tolerate", "") as log:
        result = rounds(devices(tamper), "tolerate:0.5", log)
    assert (result.rows[1]["completed"], result.rows[1]["failed"]) == (3, 1)
    assert {k: x.numpy().tolist() for k, x in result.arrays.items()} == {"w": [[1.0] * 3] * 2, "n": [1, 1]}
    events = load(log.path).events
    [failed] = events[events["event"] == "client_failed"].to_dict("records")
    assert failed["client"] == CULPRIT and re.search(reason, failed["reason"]), failed["reason"]


@pytest.mark.parametrize("kind", ["an empty record", "a header of 4 TB", "a pickle", "a list of steps"])
def test_without_tolerance_the_run_fails_with_that_reason(kind: str) -> None:
    tamper, reason = {**ARRAYS, **NUMBERS}[kind]
    with pytest.raises(RoundFailed, match=f"(?s)round 1, client {CULPRIT}, train: .*(?:{reason})"):
        rounds(devices(tamper), "raise")


@pytest.mark.parametrize("kind", ["an empty record", "no record of arrays", "another name", "words", "NaN", "objects"])
def test_flowers_average_gets_no_hostile_arrays(kind: str) -> None:
    tamper, reason = ARRAYS[kind]
    strategy = FlowerFedAvg(fraction_evaluate=0.0)
    result = rounds(devices(tamper), "tolerate:0.5", strategy=strategy)
    assert result.rows[1]["failed"] == 1 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2
    with pytest.raises(RoundFailed, match=f"(?s)client {CULPRIT}, train: .*(?:{reason})"):
        rounds(devices(tamper), "raise", strategy=strategy)


@pytest.mark.parametrize("kind", INTRODUCTIONS)
def test_a_node_that_lies_about_itself_is_refused(kind: str, tmp_path: Path) -> None:
    changed, reason = INTRODUCTIONS[kind]
    with RoundLog.create(tmp_path, "tolerate", "") as log:
        result = rounds(devices(introduction=changed), "tolerate:0.5", log)
    assert result.rows[1]["failed"] == 1 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2
    events = load(log.path).events
    refused = events[events["event"] == "node_refused"].to_dict("records")
    assert [row["node"] for row in refused] == [str(NODE)] and re.search(reason, refused[0]["reason"])


@pytest.mark.parametrize("kind", ["an id of text", "another's id"])
def test_without_tolerance_a_node_that_lies_ends_the_run(kind: str) -> None:
    with pytest.raises(RoundFailed, match=f"no usable node is client {CULPRIT}|both say that they are client 0"):
        rounds(devices(introduction=INTRODUCTIONS[kind][0]), "raise")


def test_without_a_hostile_device_all_take_part() -> None:
    result = rounds(devices(), "raise", count=2)
    assert [row["completed"] for row in result.rows[1:]] == [4, 4] and result.rows[2]["examples"] == 40
    assert result.arrays["w"].numpy().tolist() == [[2.0] * 3] * 2 and result.rows[2]["bytes_up"] == 4 * 40


@pytest.mark.parametrize("strategy", [FedAvg(), FlowerFedAvg(fraction_evaluate=0.0)], ids=["ours", "flower"])
def test_a_weight_of_0_counts_nothing(strategy: Any, tmp_path: Path) -> None:
    """The culprit sends 100 in every place with the weight 0: the mean of the others stays."""

    def tamper(content: RecordDict) -> None:
        leaves(w=np.full((2, 3), 100, np.float32))(content)
        entries("metrics", num_examples=0)(content)
        entries("facts", weight=0.0)(content)

    with RoundLog.create(tmp_path, "zero", "") as log:
        result = rounds(devices(tamper), "raise", log, strategy)
    assert result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2 and result.rows[1]["completed"] == 4
    events = load(log.path).events
    [zero] = events[events["event"] == "zero_weight"].to_dict("records")
    assert (zero["clients"], zero["phase"], zero["round"]) == ([CULPRIT], "train", 1)


@pytest.mark.parametrize("strategy", [FedAvg(), FlowerFedAvg(fraction_evaluate=0.0)], ids=["ours", "flower"])
def test_where_all_weigh_0_the_old_model_stays(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(content: RecordDict) -> None:
        entries("metrics", num_examples=0)(content)
        entries("facts", weight=0.0)(content)

    grid = devices()
    grid.tamper = lambda node, reply: nothing(reply.content) or reply if "arrays" in reply.content else reply
    result = rounds(grid, "raise", strategy=strategy)
    assert result.arrays["w"].numpy().tolist() == [[0.0] * 3] * 2
    assert (result.rows[1]["completed"], result.rows[1]["update_norm"]) == (4, 0)


@pytest.mark.parametrize("strategy", [FedAvg(), FlowerFedAvg(fraction_evaluate=0.0)], ids=["ours", "flower"])
def test_a_metric_of_nan_is_null_and_an_event(strategy: Any, tmp_path: Path) -> None:
    """The model of that client counts; the mean loss is that of the other three, or null where Flower takes it."""
    with RoundLog.create(tmp_path, "nan", "") as log:
        result = rounds(devices(entries("metrics", loss=float("nan"))), "raise", log, strategy)
    read = load(log.path)
    assert read.clients["loss"].isna().tolist() == [False, False, True, False] and result.rows[1]["completed"] == 4
    found = read.events[read.events["event"] == "not_finite"].to_dict("records")
    assert [CULPRIT] in [row.get("clients") for row in found] and found[0]["columns"] == ["loss"]
    if isinstance(strategy, FedAvg):
        assert result.rows[1]["train_loss"] == 0.5
    else:
        assert np.isnan(result.rows[1]["train_loss"]) and found[1]["columns"] == ["train_loss"]
    assert "NaN" not in (log.path / "rounds.jsonl").read_text()


EVALUATIONS: dict[str, tuple[Tamper, str]] = {
    "no loss": (entries("metrics", loss=None), "loss = None: each reply must report this number"),
    "a list of losses": (entries("metrics", loss=[1.0]), "loss is a list of 1 numbers"),
    "samples that it has not": (entries("metrics", held_out=1e300), "held_out = 1e.300: the device said .* 10 when"),
    "fewer than no samples": (entries("metrics", held_out=-1.0), "held_out = -1.0: the device said"),
    "NaN samples": (entries("metrics", held_out=float("nan")), "held_out = nan"),
    "a loss of NaN": (entries("metrics", loss=float("nan")), ""),
    "an accuracy of one alone": (entries("metrics", accuracy=1.0, accuracy_before=0.0), ""),
}
"""What is wrong with a reply to personal evaluation; "": it is no failure."""


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_hostile_replies_to_personal_evaluation(kind: str, tmp_path: Path) -> None:
    """Whatever the culprit says, the means are those of the others, 1 before and 0.5 after."""
    tamper, reason = EVALUATIONS[kind]
    config = ConfigRecord({"personalize.steps": 1, "rounds": 1})
    evaluating: Tamper = lambda content: None if "arrays" in content else tamper(content)  # noqa: E731
    grid = devices(evaluating)
    deployed = DeployedGrid(grid, CLIENTS, {}, node_timeout_s=0.05, block_size=2)
    with RoundLog.create(tmp_path, "run", "") as log:
        result = run_rounds(FedAvg(), deployed, START, 1, evaluate_config=config, log=log, failures="tolerate:0.5")
    row, events = result.rows[1], load(log.path).events
    assert (row["personal_loss_before"], row["personal_loss"], row["failed"]) == (1.0, 0.5, 0)
    failed = events[events["event"] == "client_failed"]["reason"].tolist()
    assert bool(failed) == bool(reason) and all(re.search(reason, why) for why in failed), failed
    assert ("not_finite" in events["event"].tolist()) == (kind == "a loss of NaN")


def test_what_flower_cannot_read_or_what_answers_another_message_is_its_senders_failure(tmp_path: Path) -> None:
    """Devices 0 and 1 are pulled with the two hostile ones, and lose nothing by it."""
    grid = devices()
    pull = grid.pull_messages

    def pulled(message_ids: Any) -> Any:
        replies = list(pull(message_ids))
        for reply in replies:
            sender = reply.metadata.src_node_id
            if sender == 1002 and "arrays" in reply.content:
                raise KeyError("arraychunk_ids")  # as Flower raises for objects that it cannot rebuild
            if sender == 1003 and "arrays" in reply.content:
                reply.metadata.__dict__["_reply_to_message_id"] = "real-1"
        return replies

    grid.pull_messages = pulled  # type: ignore[method-assign]
    with RoundLog.create(tmp_path, "run", "") as log:
        result = rounds(grid, "tolerate:0.5", log)
    assert result.rows[1]["completed"] == 2 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2
    events = load(log.path).events
    failed = events[events["event"] == "client_failed"].set_index("client")["reason"]
    assert failed[2].startswith("a reply that Flower cannot read: KeyError")
    assert failed[3] == "a reply that says it answers another message"


def test_a_reply_whose_rest_never_comes_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower waits for hours for the objects of a reply that a device has announced and not sent."""
    monkeypatch.setattr("fl_sim.grids.pulled_replies.PATIENCE_S", 0.05)
    monkeypatch.setattr("fl_sim.grids.deployed.PULL_S", 0.0)
    grid, ended = devices(), threading.Event()
    pull = grid.pull_messages

    def pulled(message_ids: Any) -> Any:
        replies = list(pull(message_ids))
        if any(x.metadata.src_node_id == 1000 and "arrays" in x.content for x in replies):
            ended.wait(20)
        return replies

    grid.pull_messages = pulled  # type: ignore[method-assign]
    deployed = DeployedGrid(grid, CLIENTS, {}, node_timeout_s=0.05, timeout_s=0.3, block_size=2)
    with RoundLog.create(tmp_path, "run", "") as log:
        result = run_rounds(FedAvg(), deployed, START, 1, log=log, failures="tolerate:0.5")
    ended.set()
    assert result.rows[1]["completed"] == 3 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2
    [failed] = load(log.path).events.query("event == 'client_failed'").to_dict("records")
    assert (failed["client"], failed["reason"]) == (0, "no reply within 0.3 s")


@pytest.mark.parametrize("code", [2, LATE])
def test_an_error_of_a_device_is_a_failure_whatever_its_code_and_its_reason_is_cut(code: int, tmp_path: Path) -> None:
    """This project's own code for a reply that is no failure means nothing from a device."""
    grid = devices()

    def tamper(node: int, reply: Message) -> Message:
        if node != NODE or "arrays" not in reply.content:
            return reply
        failed = Message(Error(code, "x" * 10**6), reply_to=reply)
        failed.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return failed

    grid.tamper = tamper
    with RoundLog.create(tmp_path, "run", "") as log:
        assert rounds(grid, "tolerate:0.5", log).rows[1]["failed"] == 1
    assert (log.path / "events.jsonl").stat().st_size < 20_000


def test_the_arrays_of_most_replies_decide_what_statistics_are_sent() -> None:
    """Three devices send gradients only, without the statistic n, as those of MAML do; one sends it too."""
    grid = devices()

    def tamper(node: int, reply: Message) -> Message:
        if "arrays" in reply.content and node != NODE:
            del reply.content["arrays"]["n"]
            reply.content["facts"]["num-bytes"] = 24
        return reply

    grid.tamper = tamper
    deployed = DeployedGrid(grid, CLIENTS, {}, node_timeout_s=0.05, block_size=2, statistics=["n"])
    result = run_rounds(FedAvg(), deployed, START, 1, failures="tolerate:0.5")
    assert result.rows[1]["failed"] == 1 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2


def test_there_are_many_kinds_of_hostile_replies() -> None:
    assert len({**ARRAYS, **NUMBERS}) >= 60 and len({**ARRAYS, **NUMBERS, **INTRODUCTIONS}) >= 80
