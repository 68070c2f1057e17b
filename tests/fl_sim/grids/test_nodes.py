"""Nodes that do not answer the query who they are: each is waited for once, and its late answer counts."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Message

from fl_sim.grids.nodes import Nodes
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


def test_rounds_go_on_without_it() -> None:
    grid = devices()
    grid.silent.add(NODE)
    result = rounds(grid, "tolerate:0.5", count=3)
    assert [row["failed"] for row in result.rows[1:]] == [1, 1, 1]
