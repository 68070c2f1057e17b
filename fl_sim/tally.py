"""Counting one phase of a round while its replies stream past, and stopping at failures. No paper."""

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import Message

from fl_sim import records
from fl_sim.tree import Tree


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

    def sum(self, column: str) -> float:
        """Sum of a column over the clients that completed."""
        return sum(row[column] or 0 for row in self.rows if row["status"] == "completed")

    def watch(self, replies: Iterable[Message], like: Tree | None, policy: Failures) -> Iterator[Message]:
        """Pass good replies on, count all, end the round with ``RoundFailed`` when more fail than the policy allows."""
        waiting = {message.metadata.message_id: message for message in self.messages}
        for reply in replies:
            message = waiting.pop(reply.metadata.reply_to_message_id, None)
            if message is None:
                raise RoundFailed(f"round {self.server_round}: a reply to no message of this round, from node {reply.metadata.src_node_id}")
            reason = reply_problem(reply, like)
            client = self._row(message, reply, reason)
            if reason:
                self._fail(client, reason, policy)
            else:
                yield reply
        for message in waiting.values():
            self._fail(self._row(message, None, "no reply came"), "no reply came", policy)
        if self.messages and not self.completed:
            raise RoundFailed(f"round {self.server_round}, {self.phase}: all {len(self.messages)} clients failed; the last: {self.failures[-1][1]}")

    def _fail(self, client: int, reason: str, policy: Failures) -> None:
        self.failures.append((client, reason))
        allowed = math.floor(policy.share * len(self.messages) + 1e-9)
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
            row |= {"examples": numbers.pop("num-examples", None), **numbers}
            facts = reply.content.config_records.get("facts", {})
            row |= {k: facts[k] for k in ("block", "weight") if k in facts}
            if not reason:
                self.completed += 1
                full = sum(records.num_bytes(record) for name, record in reply.content.array_records.items() if name != "pool")
                self.bytes_up += int(facts.get("num-bytes", full))
        self.rows.append(row)
        return client


def reply_problem(reply: Message, like: Mapping[str, torch.Tensor] | None) -> str:
    """Why a reply must not be used, or nothing. A partial pool was checked where it was made."""
    if reply.has_error():
        return reply.error.reason or f"error code {reply.error.code}"
    for name, record in reply.content.array_records.items():
        problem = "" if name == "pool" else records.problem(record, like)
        if problem:
            return problem
    numbers = records.merged(reply.content.metric_records.values())
    for name, value in numbers.items():
        if not all(math.isfinite(v) for v in (value if isinstance(value, list) else [value])):
            return f"{name} is {value}"
    return records.weight_problem(numbers)
