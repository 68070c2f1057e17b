"""Which node of a deployment is which client: each node gets one query.

Node ids are random, and new after a restart where nodes have no keys; an experiment knows clients by partition id.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed
from fl_sim.grids.pulled_replies import PulledReplies
from fl_sim.grids.untrusted_replies.device_replies import introduction

EXPERIMENT = "experiment"
"""Name of the ConfigRecord that describes the experiment to a device."""
ERRORS = {
    0: "unknown",
    1: "the ClientApp cannot be loaded",
    3: "the message was lost",
    5: "the node went away",
    8: "the ClientApp crashed",
}
"""The meaning of Flower's error codes, as text before the reply's own reason."""

UNANSWERED = (3, 4, 5)
"""Flower's codes of errors by which the SuperLink says that no answer came: the query or its reply has expired, or the
node went away. The node itself has said nothing, and is asked again when it is connected."""
QUERY_S = 12 * 3600.0
"""Time to live of a query: a node that is late, or busy, may still answer hours later. It is Flower's default."""
POLL_S = 0.25
"""Pause between two polls of nodes or replies; Flower's own grid pauses 3 s."""


@dataclass
class Nodes:
    """The nodes of a run, by the client that each one is.

    Parameters
    ----------
    num_clients : int
        C: the run needs the clients 0..C-1.
    """

    num_clients: int
    of: dict[int, int] = field(default_factory=dict)
    """Client -> node id."""
    facts: dict[int, Mapping[str, object]] = field(default_factory=dict)
    """Client -> the facts in its answer to the query."""
    refused: dict[int, str] = field(default_factory=dict)
    """Node id -> why it cannot be used."""

    max_examples: float = math.inf
    """The largest number of samples that a node is believed to have."""
    tolerant: bool = False
    """Whether the second of two nodes that say that they are one client is refused; else the run fails."""
    pending: dict[str, int] = field(default_factory=dict)
    """Message id -> node, of queries without an answer yet."""
    waited_for: dict[int, float] = field(default_factory=dict)
    """Node -> until when (monotonic clock) exchanges wait for the answer to its first query."""

    def find(self, grid: Grid, experiment: ConfigRecord, timeout_s: float, allowed_missing: int = 0) -> None:
        """Wait until all clients' nodes are connected.

        Raises RoundFailed that names those missing after ``timeout_s``.
        """
        missing = self.absent(grid, experiment, range(self.num_clients), timeout_s, patient=True)
        if len(missing) > allowed_missing:
            silent = dict.fromkeys(self.pending.values(), "no answer to the question which client it is")
            why = "".join(f"; node {node}: {reason}" for node, reason in {**silent, **self.refused}.items())
            who = f"client{'s' * (len(missing) > 1)} {', '.join(map(str, missing))} of 0..{self.num_clients - 1}"
            there = self.num_clients - len(missing)
            raise RoundFailed(f"after {timeout_s:g} s no usable node is {who}; {there} are there{why}")

    def absent(
        self, grid: Grid, experiment: ConfigRecord, clients: Iterable[int], timeout_s: float, patient: bool
    ) -> list[int]:
        """The clients of ``clients`` whose node is not connected; each new node gets a query for its client id.

        Waits at most ``timeout_s``: with ``patient`` for all of these clients, else only for the answers of nodes that
        are connected. A node that does not answer is waited for once, and not again in each exchange; its late answer
        counts. One whose query or answer has expired, or that went away before it answered, is asked again.
        """
        end, pulled = time.monotonic() + timeout_s, PulledReplies(grid)
        while True:
            there = set(grid.get_node_ids())
            new = sorted(there - {*self.of.values(), *self.refused, *self.pending.values()})
            queries = [Message(RecordDict({EXPERIMENT: experiment}), node, "query", ttl=QUERY_S) for node in new]
            if queries:
                asked = {i: node for i, node in zip(grid.push_messages(queries), new, strict=True) if i}
                self.pending |= asked
                self.waited_for = dict.fromkeys(asked.values(), time.monotonic() + timeout_s) | self.waited_for
            for number, reply, problem in pulled(self.pending):
                self._introduce(there, self.pending.pop(number), reply, problem)
            absent, now = [c for c in clients if self.of.get(c) not in there], time.monotonic()
            unknown = there - {*self.of.values(), *self.refused}
            if not absent or now > end or not (patient or any(now < self.waited_for.get(n, 0.0) for n in unknown)):
                return absent
            time.sleep(POLL_S)

    def _introduce(self, there: set[int], node: int, reply: Message | None, problem: str) -> None:
        """Read a node's answer to the query: its client and its facts, or why it cannot be used."""
        if reply is not None and reply.has_error() and reply.error.code in UNANSWERED:
            return
        if reply is None or reply.has_error():
            self.refused[node] = problem if reply is None else reason_of(reply.error)
            return
        client, facts, why = introduction(reply, self.num_clients, self.max_examples)
        if why:
            self.refused[node] = why
            return
        before = self.of.get(client)
        if before is not None and before in there:
            if self.tolerant:
                self.refused[node] = f"it says that it is client {client} (partition-id), as node {before} did"
                return
            both = " and ".join(map(str, sorted((before, node))))
            clash = f"nodes {both} both say that they are client {client} (partition-id)"
            raise RoundFailed(f"{clash}; each must have its own")
        self.of[client], self.facts[client] = node, facts


def reason_of(error: Error) -> str:
    """An error of Flower as text."""
    what = ERRORS.get(error.code, "")
    return ": ".join(filter(None, [what, error.reason or ""])) or f"error code {error.code}"
