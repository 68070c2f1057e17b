"""Replies that Flower cannot rebuild, that answer another message, or that never come whole, harm no other."""

import threading
from pathlib import Path
from typing import Any

import pytest

from fl_sim import RoundLog, load, run_rounds
from fl_sim.grids.deployed import DeployedGrid
from strategies.fedavg import FedAvg
from tests.fl_sim.grids.untrusted_replies.few_devices import CLIENTS, START, devices, rounds


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
