"""Nodes that do not answer the query who they are: each is waited for once, and its late answer counts."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Error, Message

from fl_sim.errors import RoundFailed
from fl_sim.grids.nodes import UNANSWERED, Nodes
from tests.conformance.in_process import InProcessGrid
from tests.fl_sim.grids.untrusted_replies.few_devices import CLIENTS, CULPRIT, NODE, devices, rounds


class Held(InProcessGrid):
    """Holds the replies of one node back, and counts how often the nodes are asked for."""

    polls, holds = 0, True

    def get_node_ids(self) -> list[int]:
        self.polls += 1
        return list(super().get_node_ids())

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        kept = {i for i, r in self._replies.items() if self.holds and r.metadata.src_node_id == NODE}
        return list(super().pull_messages([i for i in message_ids if i not in kept]))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.grids.nodes.POLL_S", 0.01)


def test_a_node_that_does_not_answer_is_waited_for_once_and_its_late_answer_counts() -> None:
    grid, nodes = Held(devices().app, {1000 + c: c for c in range(CLIENTS)}), Nodes(CLIENTS)

    def absent(timeout_s: float) -> tuple[list[int], int]:
        before = grid.polls
        return nodes.absent(grid, ConfigRecord(), range(CLIENTS), timeout_s, patient=False), grid.polls - before

    missing, polls = absent(0.5)
    assert missing == [CULPRIT] and polls > 1
    missing, polls = absent(60.0)
    assert missing == [CULPRIT] and polls < 10  # of some thousand in 60 s
    grid.holds = False
    assert absent(60.0)[0] == [] and nodes.of[CULPRIT] == NODE


class Expiring(InProcessGrid):
    """The SuperLink answers in the place of one node, ``errors`` times, with Flower's error ``code``."""

    code, errors = 3, 1

    def _call(self, message: Message, node: int) -> Message:
        self.errors -= node == NODE
        if node == NODE and self.errors >= 0:
            return Message(Error(self.code, "has expired"), reply_to=message)
        return super()._call(message, node)


@pytest.mark.parametrize("code", UNANSWERED)
def test_a_node_whose_query_expired_is_asked_again(code: int) -> None:
    """It is no refusal: the SuperLink says that no answer came, because it took too long, or the node went away."""
    grid, nodes = Expiring(devices().app, {1000 + c: c for c in range(CLIENTS)}), Nodes(CLIENTS)
    grid.code = code
    assert nodes.absent(grid, ConfigRecord(), range(CLIENTS), 20.0, patient=False) == []
    assert nodes.of[CULPRIT] == NODE and not nodes.refused


def test_a_node_that_refuses_by_itself_is_not_asked_again() -> None:
    grid, nodes = Expiring(devices().app, {1000 + c: c for c in range(CLIENTS)}), Nodes(CLIENTS)
    grid.code = 2
    assert nodes.absent(grid, ConfigRecord(), range(CLIENTS), 20.0, patient=False) == [CULPRIT]
    assert nodes.refused == {NODE: "has expired"}


def test_expired_queries_delay_no_exchange_after_the_first() -> None:
    """A node that never answers in time is asked in each exchange, whose answers come in the next one."""
    grid, nodes = Expiring(devices().app, {1000 + c: c for c in range(CLIENTS)}), Nodes(CLIENTS)
    grid.errors, nodes.waited_for[NODE] = 99, 0.0
    begin = time.monotonic()
    for _ in range(3):
        assert nodes.absent(grid, ConfigRecord(), range(CLIENTS), 60.0, patient=False) == [CULPRIT]
    assert time.monotonic() - begin < 30 and sum(node == NODE for node, _ in grid.asked) == 3
    grid.errors = 0
    assert nodes.absent(grid, ConfigRecord(), range(CLIENTS), 60.0, patient=False) == []


def test_a_node_that_says_nothing_is_named_where_the_run_cannot_begin() -> None:
    grid = devices()
    grid.silent.add(NODE)
    with pytest.raises(RoundFailed, match=f"is client {CULPRIT} of 0..3; 3 are there; node {NODE}: no answer to the"):
        Nodes(CLIENTS).find(grid, ConfigRecord(), 0.05)


def test_rounds_go_on_without_it() -> None:
    grid = devices()
    grid.silent.add(NODE)
    result = rounds(grid, "tolerate:0.5", count=3)
    assert [row["failed"] for row in result.rows[1:]] == [1, 1, 1]
