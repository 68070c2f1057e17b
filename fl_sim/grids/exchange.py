"""One exchange of messages, counted and checked while its replies stream past; it ends when too many clients fail."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, Message

from fl_sim.errors import RoundFailed
from fl_sim.grids import no_answer
from fl_sim.grids.untrusted_replies.claims import MOST_STEPS, whole
from fl_sim.grids.untrusted_replies.exchange_replies import Expected, Report, problem, put_in_order, read, zero_weight
from fl_sim.wire import records
from fl_sim.wire.reply_form import Likes

OWN_FACTS = (
    *("block", "weight", "worker", "seconds", "attacked"),
    *("started", "virtual_seconds", "virtual_down", "virtual_up", "speed_class"),
)
"""Facts of a reply that are columns of ``clients.jsonl``, where they are numbers."""
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

    def told(self, failed: int, num_clients: int) -> str:
        """What an error says of how many failed; empty where none may."""
        allowed = self.allowed(num_clients)
        return f" ({failed} of {num_clients} failed, {allowed} allowed)" if allowed else ""


@dataclass
class Exchange:
    """The result of an exchange so far: counts, bytes, rows for ``clients.jsonl``."""

    server_round: int
    phase: str
    messages: list[Message]
    client_of: Mapping[int, int]
    """Node id -> client id."""
    unseen: Container[int] = ()
    """Node ids of clients that never train, and that no choice reads."""
    expected: Expected = Expected()
    """What replies must be."""
    validating: Container[int] = ()
    """Node ids of validation clients."""
    sink: Callable[[list[dict[str, object]]], None] | None = None
    """Takes rows, ``FLUSH`` at a time; None: all are kept."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """Rows that no sink has taken."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(client id, reason) of each failure."""
    completed: int = 0
    """Clients whose reply was good."""
    passed_on: int = 0
    """Good replies that the strategy gets: not those that weigh nothing, or whose numbers no mean can contain."""
    zero: list[int] = field(default_factory=list)
    """Clients whose good reply has the weight 0."""
    app_owned: bool = False
    """Whether an app began it itself, which is told of messages that nobody can answer, and goes on."""
    unanswered: list[tuple[int, int, str]] = field(default_factory=list)
    """(client id, code, reason) of messages without a reply that are no failure of the client: ``no_answer``."""
    not_finite: dict[int, list[str]] = field(default_factory=dict)
    """Client id -> the numbers in its good reply that are NaN or infinite, and null in the log."""
    strays: list[str] = field(default_factory=list)
    """Replies that answer no message of this exchange, or one that was answered."""
    bytes_up: int = 0
    """Model bytes of the good replies."""
    bytes_up_raw: int | None = None
    """What they would be without a codec; None where there is none."""
    sums: dict[str, Any] = field(default_factory=dict)
    """Sums of ``examples`` and ``steps`` over the good replies."""
    sent_bytes: Callable[[int, int], int] | None = None
    """(client id, bytes of a message with the whole model) -> bytes that are sent; None: the whole model is."""
    not_sent: set[str] = field(default_factory=set)
    """Ids of messages that never left the server."""

    @property
    def model_bytes(self) -> list[int]:
        """Model bytes that each message carries on its way."""
        whole, sent = self.whole_bytes, self.sent_bytes
        if sent is None:
            return whole
        nodes = (message.metadata.dst_node_id for message in self.messages)
        return [sent(self.client_of.get(node, node), size) for node, size in zip(nodes, whole, strict=True)]

    @property
    def whole_bytes(self) -> list[int]:
        """Bytes of each message's model and payload."""
        sizes: dict[int, int] = {}
        for content in (message.content for message in self.messages):
            if id(content) not in sizes:
                sizes[id(content)] = sum(map(records.num_bytes, records.of(content, ArrayRecord).values()))
        return [sizes[id(message.content)] for message in self.messages]

    @property
    def bytes_down(self) -> int:
        """Model bytes of the messages that were sent; those to clients that failed or were late, too."""
        return self._leaving(self.model_bytes)

    def bytes_down_with(self, more: Sequence[int]) -> tuple[int, int]:
        """(``bytes_down`` with messages to the clients ``more`` besides, what it would be with whole models)."""
        whole = self.whole_bytes
        most = max(whole, default=0)
        raw = self._leaving(whole) + len(more) * most
        if self.sent_bytes is None:
            return raw, raw
        return self.bytes_down + sum(self.sent_bytes(client, most) for client in more), raw

    def _leaving(self, sizes: Iterable[int]) -> int:
        numbers = (message.metadata.message_id for message in self.messages)
        return sum(n for number, n in zip(numbers, sizes, strict=True) if number not in self.not_sent)

    @property
    def unfinished(self) -> list[int]:
        """Clients from which no good reply came."""
        return [client for client, _ in self.failures] + [client for client, *_ in self.unanswered]

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
            errors += reply.has_error() and not no_answer.excused(reply, self.app_owned, self.phase == "train")
            if errors > policy.allowed(len(self.messages)):
                break
        return gathered

    def checked(self, replies: Iterable[Message], likes: Likes, policy: Failures) -> Iterator[Message]:
        """Pass good replies on and count all. Raises RoundFailed when more clients fail than the policy allows.

        A good reply of weight 0 is counted and not passed on; nor is one whose numbers no mean can contain, where
        nothing else is done with them (``Expected.not_finite``).
        """
        waiting = {message.metadata.message_id: message for message in self.messages}
        for reply in replies:
            message = waiting.pop(reply.metadata.reply_to_message_id, None)
            if message is None:
                self._stray(reply, policy)
                continue
            if no_answer.not_sent(reply):
                self.not_sent.add(message.metadata.message_id)
            if no_answer.excused(reply, self.app_owned, self.phase == "train"):
                self._excuse(message, reply)
                continue
            report = read(reply, self.expected.own_facts)
            reason = problem(message, reply, report, likes, self.expected)
            zero = zero_weight(report, self.expected.weight_key)
            client = self._row(message, report, reason)
            if reason or report is None:
                self._fail(client, reason, policy)
            elif not (zero or report.not_finite) or self._used(client, report, reply, zero):
                self.passed_on += 1
                if self.expected.combined and not self.expected.own_model:
                    put_in_order(message, reply, likes)
                yield reply
        for message in waiting.values():
            self._fail(self._row(message, None, "no reply came"), "no reply came", policy)
        self._check_completed()

    def _check_completed(self) -> None:
        """Raise RoundFailed where all clients failed, or were late."""
        late = not self.app_owned and any(code in (no_answer.LATE, no_answer.UNUSED) for _, code, _ in self.unanswered)
        if self.messages and not self.completed and (self.failures or late):
            last = self.failures[-1][1] if self.failures else self.unanswered[-1][2]
            what = f"all {len(self.messages)} clients failed; the last: {last}"
            raise RoundFailed(f"round {self.server_round}, {self.phase}: {what}")

    @property
    def _own_sizes(self) -> bool:
        """Whether the grid has counted the bytes of replies itself, before it pooled or decoded them."""
        return self.expected.own_pools

    def _facts(self, message: Message) -> Mapping[str, object]:
        """More columns of a client's row."""
        return {}

    def _excuse(self, message: Message, reply: Message) -> None:
        """Note a message without a reply that is no failure of its client."""
        client = self._row(message, None, str(reply.error.reason), "dropped", no_answer.facts_of(reply))
        self.unanswered.append((client, reply.error.code, str(reply.error.reason)))

    def _used(self, client: int, report: Report, reply: Message, zero: bool) -> bool:
        """Whether the strategy gets a good reply; notes why not, and which numbers are not finite."""
        bad = report.not_finite
        if bad:
            self.not_finite[client] = bad
            if self.expected.not_finite == "null" and self.expected.own_model:
                for record in reply.content.metric_records.values():
                    for name in set(bad) & set(record):
                        del record[name]
        if zero:
            self.zero.append(client)
            return self.expected.passes_zero
        return not (bad and self.expected.not_finite == "left out")

    def _stray(self, reply: Message, policy: Failures) -> None:
        """Note a reply that belongs to no message; raises RoundFailed where no failure is allowed."""
        stray = f"a reply to no message of this round, from node {reply.metadata.src_node_id}"
        if policy.allowed(len(self.messages)) == 0:
            raise RoundFailed(f"round {self.server_round}: {stray}")
        self.strays.append(stray)

    def _fail(self, client: int, reason: str, policy: Failures) -> None:
        self.failures.append((client, reason))
        failed, asked = len(self.failures), len(self.messages)
        if failed > policy.allowed(asked):
            count = policy.told(failed, asked)
            raise RoundFailed(f"round {self.server_round}, client {client}, {self.phase}{count}: {reason}")

    def _row(
        self,
        message: Message,
        report: Report | None,
        reason: str,
        status: str = "",
        times: Mapping[str, float] = MappingProxyType({}),
    ) -> int:
        node = message.metadata.dst_node_id
        client = self.client_of.get(node, node)
        row: dict[str, object] = {
            "round": self.server_round,
            "client": client,
            "phase": self.phase,
            "status": status or ("failed" if reason else "completed"),
            "reason": reason or None,
            "examples": None,
            "steps": None,
            **times,
            **self._facts(message),
        }
        if self.phase == "personal":
            row |= {"unseen": node in self.unseen}
            if self.validating:
                row |= {"validation": True, "unseen": None} if node in self.validating else {"validation": False}
        if report is not None:
            numbers, facts = report.numbers, report.facts
            if isinstance(numbers.get(self.expected.weight_key), (int, float)):
                row["examples"] = numbers.pop(self.expected.weight_key)
            steps = numbers.get("steps")
            if (type(steps) is int and 0 <= steps <= MOST_STEPS) or not whole(numbers, "steps", MOST_STEPS):
                row["steps"] = numbers.pop("steps")
            for k, v in (*numbers.items(), *report.sets.items()):
                row[f"client_{k}" if k in row else k] = v
            row |= {k: facts[k] for k in OWN_FACTS if isinstance(facts.get(k), (int, float))}
            if not reason:
                self._count(row, report)
        self.rows.append(row)
        if self.sink is not None and len(self.rows) >= FLUSH:
            self.flush()
        return client

    def _count(self, row: Mapping[str, object], report: Report) -> None:
        self.completed += 1
        for column in ("examples", "steps"):
            if row[column] is not None:
                self.sums[column] = self.sums.get(column, 0) + row[column]
        self.bytes_up += report.num_bytes(self._own_sizes)
        raw = report.facts.get("num-bytes-raw")
        if isinstance(raw, int):
            self.bytes_up_raw = (self.bytes_up_raw or 0) + raw
