"""Counting one phase of a round while its replies stream past, and stopping at failures. No paper."""

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from fl_sim import records
from fl_sim.forms import Likes


class RoundFailed(RuntimeError):
    """A round did not do what it was asked; says which, and why (a client's traceback, say)."""


@dataclass(frozen=True)
class Failures:
    """How many clients of a phase may fail: a share of those asked; 0 means none."""

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
            raise ValueError(f"failures = {text!r}: must be raise, or tolerate:SHARE with 0 <= SHARE <= 1, such as tolerate:0.2")
        return cls(share)

    def allowed(self, asked: int) -> int:
        """How many of so many clients may fail."""
        return math.floor(self.share * asked + 1e-9)


@dataclass
class Tally:
    """What came of a phase: counts, bytes, rows for ``clients.jsonl``."""

    server_round: int
    phase: str
    messages: list[Message]
    client_of: Mapping[int, int]
    """Node id -> client id."""
    unseen: Container[int] = ()
    """Node ids that never train."""
    weight_key: str = "num-examples"
    """The metric that weights a reply."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    completed: int = 0
    bytes_up: int = 0

    @property
    def bytes_down(self) -> int:
        """Model bytes that the messages carry."""
        sizes: dict[int, int] = {}
        total = 0
        for message in self.messages:
            for record in message.content.array_records.values():
                if id(record) not in sizes:
                    sizes[id(record)] = records.num_bytes(record)
                total += sizes[id(record)]
        return total

    def sum(self, column: str) -> int | None:
        """Sum of a column over the clients that completed; None where none of them says it."""
        known = [row[column] for row in self.rows if row["status"] == "completed" and row[column] is not None]
        return int(sum(known)) if known or not self.completed else None

    def gather(self, replies: Iterable[Message], policy: Failures) -> list[Message]:
        """Replies until all are there, or more of them are errors than the policy allows: the rest then need not be computed."""
        gathered, errors = [], 0
        for reply in replies:
            gathered.append(reply)
            errors += reply.has_error()
            if errors > policy.allowed(len(self.messages)):
                break
        return gathered

    def watch(self, replies: Iterable[Message], likes: Likes, policy: Failures) -> Iterator[Message]:
        """Pass good replies on, count all, end the round with ``RoundFailed`` when more fail than the policy allows."""
        waiting = {message.metadata.message_id: message for message in self.messages}
        for reply in replies:
            message = waiting.pop(reply.metadata.reply_to_message_id, None)
            if message is None:
                raise RoundFailed(f"round {self.server_round}: a reply to no message of this round, from node {reply.metadata.src_node_id}")
            reason = reply_problem(message, reply, likes, self.weight_key)
            client = self._row(message, reply, reason)
            if reason:
                self._fail(client, reason, policy)
            else:
                yield reply
        for message in waiting.values():
            self._fail(self._row(message, None, "no reply came"), "no reply came", policy)
        if self.messages and not self.completed:
            raise RoundFailed(
                f"round {self.server_round}, {self.phase}: all {len(self.messages)} clients failed; the last: {self.failures[-1][1]}"
            )

    def _fail(self, client: int, reason: str, policy: Failures) -> None:
        self.failures.append((client, reason))
        allowed = policy.allowed(len(self.messages))
        if len(self.failures) > allowed:
            count = "" if allowed == 0 else f" ({len(self.failures)} of {len(self.messages)} failed, {allowed} allowed)"
            raise RoundFailed(f"round {self.server_round}, client {client}, {self.phase}{count}: {reason}")

    def _row(self, message: Message, reply: Message | None, reason: str) -> int:
        node = message.metadata.dst_node_id
        client = self.client_of.get(node, node)
        row: dict[str, Any] = {"round": self.server_round, "client": client, "phase": self.phase}
        row |= {"status": "failed" if reason else "completed", "reason": reason or None, "examples": None, "steps": None}
        if self.phase == "personal":
            row["unseen"] = node in self.unseen
        if reply is not None and reply.has_content():
            numbers = records.merged(reply.content.metric_records.values())
            row |= {"examples": numbers.pop(self.weight_key, None)}
            row |= {"steps": numbers.pop("steps")} if isinstance(numbers.get("steps"), (int, float)) else {}
            row |= {f"client_{k}" if k in row else k: v for k, v in numbers.items()}
            facts: Mapping[str, Any] = reply.content.config_records.get("facts", {})
            row |= {k: facts[k] for k in ("block", "weight") if k in facts}
            if not reason:
                self.completed += 1
                full = sum(records.num_bytes(record) for name, record in reply.content.array_records.items() if name != "pool")
                self.bytes_up += int(facts.get("num-bytes", full))
        self.rows.append(row)
        return client


def reply_problem(message: Message, reply: Message, likes: Likes, weight_key: str = "num-examples") -> str:
    """Why a reply must not be used, or nothing. A partial pool was checked where it was made."""
    if reply.has_error():
        return reply.error.reason or f"error code {reply.error.code}"
    wanted = likes(message, reply)
    for name, record in reply.content.array_records.items():
        try:
            problem = "" if name == "pool" else records.problem(record, wanted.get(name))
        except (ValueError, EOFError) as error:
            problem = f"arrays that cannot be read: {error}"
        if problem:
            return problem
    numbers = records.merged(reply.content.metric_records.values())
    for name, value in numbers.items():
        if not all(math.isfinite(v) for v in (value if isinstance(value, list) else [value])):
            return f"{name} is {value}"
    return records.weight_problem(numbers, weight_key)
