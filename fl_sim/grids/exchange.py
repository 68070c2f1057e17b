"""One exchange of messages, counted and checked while its replies stream past; it ends when too many clients fail."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flwr.app import ArrayRecord, Message, MetricRecord

from fl_sim.errors import RoundFailed
from fl_sim.wire import records
from fl_sim.wire.reply_form import Likes
from fl_sim.wire.set_records import SETS, from_record

FLUSH = 256
"""Rows that are collected before the sink gets them, so that memory does not grow with the clients of a round."""


@dataclass(frozen=True)
class Failures:
    """How many clients of an exchange may fail: a share of its clients; 0 means none."""

    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Failures":
        """``raise`` or ``tolerate:SHARE`` with 0 <= SHARE <= 1. Raises ValueError otherwise."""
        head, _, tail = text.partition(":")
        try:
            share = 0.0 if text == "raise" else float(tail)
        except ValueError:
            share = math.nan
        if head not in ("raise", "tolerate") or not 0 <= share <= 1:
            expected = "raise, or tolerate:SHARE with 0 <= SHARE <= 1, such as tolerate:0.2"
            raise ValueError(f"failures = {text!r}: must be {expected}")
        return cls(share)

    def allowed(self, num_clients: int) -> int:
        """How many of ``num_clients`` may fail."""
        return math.floor(self.share * num_clients + 1e-9)


@dataclass
class Exchange:
    """The result of an exchange so far: counts, bytes, rows for ``clients.jsonl``."""

    server_round: int
    phase: str
    messages: list[Message]
    client_of: Mapping[int, int]
    """Node id -> client id."""
    unseen: Container[int] = ()
    """Node ids of clients that never train."""
    weight_key: str = "num-examples"
    """The metric that weights a reply."""
    sink: Callable[[list[dict[str, object]]], None] | None = None
    """Takes rows, ``FLUSH`` at a time; None: all are kept."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """Rows that no sink has taken."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(client id, reason) of each failure."""
    completed: int = 0
    """Clients whose reply was good."""
    bytes_up: int = 0
    """Model bytes of the good replies."""
    sums: dict[str, Any] = field(default_factory=dict)
    """Sums of ``examples`` and ``steps`` over the good replies."""

    @property
    def bytes_down(self) -> int:
        """Model bytes that the messages carry."""
        sizes: dict[int, int] = {}
        total = 0
        for message in self.messages:
            content = message.content
            if id(content) not in sizes:
                sizes[id(content)] = sum(map(records.num_bytes, records.of(content, ArrayRecord).values()))
            total += sizes[id(content)]
        return total

    def sum(self, column: str) -> int | None:
        """Sum of ``examples`` or ``steps`` over the clients that completed; None where none of them reports it."""
        return int(self.sums.get(column, 0)) if column in self.sums or not self.completed else None

    def flush(self) -> None:
        """Hand the rows that are left to the sink."""
        if self.sink is not None and self.rows:
            rows, self.rows = self.rows, []
            self.sink(rows)

    def gather(self, replies: Iterable[Message], policy: Failures) -> list[Message]:
        """All replies; stops early, and the rest is not computed, when more are errors than the policy allows."""
        gathered, errors = [], 0
        for reply in replies:
            gathered.append(reply)
            errors += reply.has_error()
            if errors > policy.allowed(len(self.messages)):
                break
        return gathered

    def checked(self, replies: Iterable[Message], likes: Likes, policy: Failures) -> Iterator[Message]:
        """Pass good replies on and count all. Raises RoundFailed when more clients fail than the policy allows."""
        waiting = {message.metadata.message_id: message for message in self.messages}
        for reply in replies:
            message = waiting.pop(reply.metadata.reply_to_message_id, None)
            if message is None:
                stray = f"a reply to no message of this round, from node {reply.metadata.src_node_id}"
                raise RoundFailed(f"round {self.server_round}: {stray}")
            report = _read(reply)
            reason = _problem(message, reply, report, likes, self.weight_key)
            client = self._row(message, report, reason)
            if reason:
                self._fail(client, reason, policy)
            else:
                yield reply
        for message in waiting.values():
            self._fail(self._row(message, None, "no reply came"), "no reply came", policy)
        if self.messages and not self.completed:
            last = self.failures[-1][1]
            what = f"all {len(self.messages)} clients failed; the last: {last}"
            raise RoundFailed(f"round {self.server_round}, {self.phase}: {what}")

    def _fail(self, client: int, reason: str, policy: Failures) -> None:
        self.failures.append((client, reason))
        allowed = policy.allowed(len(self.messages))
        if len(self.failures) > allowed:
            failed = f"{len(self.failures)} of {len(self.messages)} failed"
            count = "" if allowed == 0 else f" ({failed}, {allowed} allowed)"
            raise RoundFailed(f"round {self.server_round}, client {client}, {self.phase}{count}: {reason}")

    def _row(self, message: Message, report: "_Report | None", reason: str) -> int:
        node = message.metadata.dst_node_id
        client = self.client_of.get(node, node)
        row: dict[str, object] = {
            "round": self.server_round,
            "client": client,
            "phase": self.phase,
            "status": "failed" if reason else "completed",
            "reason": reason or None,
            "examples": None,
            "steps": None,
        }
        if self.phase == "personal":
            row["unseen"] = node in self.unseen
        if report is not None:
            numbers, facts = report.numbers, report.facts
            row["examples"] = numbers.pop(self.weight_key, None)
            if isinstance(numbers.get("steps"), (int, float)):
                row["steps"] = numbers.pop("steps")
            for k, v in (*numbers.items(), *report.sets.items()):
                row[f"client_{k}" if k in row else k] = v
            for k in ("block", "weight"):
                if k in facts:
                    row[k] = facts[k]
            if not reason:
                self._count(row, report)
        self.rows.append(row)
        if self.sink is not None and len(self.rows) >= FLUSH:
            self.flush()
        return client

    def _count(self, row: Mapping[str, object], report: "_Report") -> None:
        self.completed += 1
        for column in ("examples", "steps"):
            if row[column] is not None:
                self.sums[column] = self.sums.get(column, 0) + row[column]
        size = report.facts.get("num-bytes")
        if size is None:
            size = sum(records.num_bytes(record) for name, record in report.arrays.items() if name != "pool")
        self.bytes_up += int(size)


class _Report(NamedTuple):
    """A reply's records, looked up once."""

    arrays: dict[str, ArrayRecord]
    numbers: dict[str, Any]
    facts: Mapping[str, Any]
    sets: dict[str, object]
    """Set metrics, as they are logged."""


def _read(reply: Message) -> _Report | None:
    """A reply's records; None for an error reply."""
    if not reply.has_content():
        return None
    arrays: dict[str, ArrayRecord] = {}
    numbers: dict[str, object] = {}
    facts: Mapping[str, object] = {}
    sets: dict[str, object] = {}
    for name, record in reply.content.items():
        if isinstance(record, MetricRecord):
            numbers.update(record.items())
        elif isinstance(record, ArrayRecord):
            arrays[name] = record
        elif name == "facts":
            facts = dict(record.items())
        elif name == SETS:
            sets = from_record(record)
    return _Report(arrays, numbers, facts, sets)


def _problem(message: Message, reply: Message, report: _Report | None, likes: Likes, weight_key: str) -> str:
    """Why a reply must not be used, or "". A partial pool was checked where it was computed."""
    if report is None:
        return reply.error.reason or f"error code {reply.error.code}"
    expected = likes(message, reply) if report.arrays and report.arrays.keys() != {"pool"} else {}
    for name, record in report.arrays.items():
        try:
            problem = "" if name == "pool" else records.problem(record, expected.get(name))
        except (ValueError, EOFError) as error:
            problem = f"arrays that cannot be read: {error}"
        if problem:
            return problem
    for name, value in report.numbers.items():
        if not all(map(math.isfinite, value)) if isinstance(value, list) else not math.isfinite(value):
            return f"{name} is {value}"
    return records.weight_problem(report.numbers, weight_key)
