"""A hostile device: each field of its reply is checked within the failure policy, and the others' round goes on."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from fl_sim import RoundFailed, RoundLog, load, run_rounds
from fl_sim.grids.deployed import DeployedGrid
from fl_sim.grids.no_answer import LATE
from strategies.fedavg import FedAvg
from strategies.maxpool import MaxPool
from tests.fl_sim.grids.untrusted_replies.few_devices import CLIENTS, CULPRIT, NODE, START, devices, rounds
from tests.fl_sim.grids.untrusted_replies.hostile import (
    ARRAYS,
    INTRODUCTIONS,
    NUMBERS,
    Tamper,
    entries,
    leaves,
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.grids.nodes.POLL_S", 0.01)


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


class Single(FedAvg):
    """FedAvg that gets each reply by itself, and not as part of a partial pool."""

    one_reply_a_client = True


@pytest.mark.parametrize("kind", [*ARRAYS, "a list of steps"])
def test_a_strategy_that_gets_each_reply_by_itself_gets_no_hostile_one(kind: str) -> None:
    tamper, _ = {**ARRAYS, **NUMBERS}[kind]
    result = rounds(devices(tamper), "tolerate:0.5", strategy=Single())
    assert result.rows[1]["failed"] == 1 and result.arrays["w"].numpy().tolist() == [[1.0] * 3] * 2


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


def test_where_all_send_the_same_nonsense_it_is_still_compared_with_the_servers_model() -> None:
    for kind in ("an empty record", "a leaf is missing", "a leaf too many", "another shape"):
        grid, (change, _) = devices(), ARRAYS[kind]
        grid.tamper = lambda node, reply, f=change: f(reply.content) or reply if "arrays" in reply.content else reply
        with pytest.raises(RoundFailed, match="all 4 clients failed; the last: (a reply without|wrong)"):
            rounds(grid, "tolerate:1")


def test_without_a_hostile_device_all_take_part() -> None:
    result = rounds(devices(), "raise", count=2)
    assert [row["completed"] for row in result.rows[1:]] == [4, 4] and result.rows[2]["examples"] == 40
    assert result.arrays["w"].numpy().tolist() == [[2.0] * 3] * 2 and result.rows[2]["bytes_up"] == 4 * 40


@pytest.mark.parametrize(
    ("strategy", "pooled"),
    [(FedAvg(), 5 / 3), (MaxPool(), 3.0), (FlowerFedAvg(fraction_evaluate=0.0), 5 / 3)],
    ids=["ours", "max", "flower"],
)
def test_a_weight_of_0_counts_nothing(strategy: Any, pooled: float, tmp_path: Path) -> None:
    """The culprit sends 100 in every place with the weight 0; of the others, that of its own block sends 3, two 1."""

    def tamper(content: RecordDict) -> None:
        leaves(w=np.full((2, 3), 100, np.float32))(content)
        entries("metrics", num_examples=0)(content)
        entries("facts", weight=0.0)(content)

    grid, three = devices(tamper), leaves(w=np.full((2, 3), 3, np.float32))
    grid.tamper = lambda n, reply: three(reply.content) or reply if n == 1003 and "arrays" in reply.content else reply
    with RoundLog.create(tmp_path, "zero", "") as log:
        result = rounds(grid, "raise", log, strategy)
    assert result.arrays["w"].numpy() == pytest.approx(np.full((2, 3), pooled)) and result.rows[1]["completed"] == 4
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
