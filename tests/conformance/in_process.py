"""A Flower grid whose nodes are ClientApps called in this process: a deployment without processes and network."""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fl_sim.wire import flower


class InProcessGrid(Grid):
    """Nodes with arbitrary ids in no order; node n answers as partition ``partitions[n]``."""

    def __init__(self, client_app: ClientApp, partitions: dict[int, int], **node_config: Any) -> None:
        self._run = flower.identify(4711)
        self.app, self.partitions, self.node_config = client_app, dict(partitions), node_config
        self.asked: list[tuple[int, str]] = []
        """(node, message type) of each message that was pushed."""
        self.silent: set[int] = set()
        """Nodes that accept messages and never reply."""
        self.tamper: Callable[[int, Message], Message] = lambda node, reply: reply
        self._replies: dict[str, Message] = {}
        self._sent = 0

    @classmethod
    def of(cls, client_app: ClientApp, clients: int, **node_config: Any) -> "InProcessGrid":
        return cls(client_app, {(7919 * (c + 3)) % 10007 + 10**12: c for c in range(clients)}, **node_config)

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.partitions)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self._sent += 1
            flower.set_message_id(message, f"real-{self._sent}")
            node = message.metadata.dst_node_id
            assert message.metadata.ttl > 0
            self.asked.append((node, message.metadata.message_type))
            ids.append(message.metadata.message_id)
            if node not in self.silent:
                self._replies[ids[-1]] = self.tamper(node, self._call(message, node))
        return ids

    def _call(self, message: Message, node: int) -> Message:
        config = {"partition-id": self.partitions[node], "num-partitions": len(self.partitions), **self.node_config}
        content = RecordDict({name: copied(record) for name, record in message.content.items()})
        own = Message(content, node, message.metadata.message_type, group_id=message.metadata.group_id)
        flower.set_message_id(own, message.metadata.message_id)
        try:
            return self.app(own, flower.context(node, config, RecordDict(), {}))
        except Exception as error:  # Flower answers with an Error too
            return Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=own)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [i for i in message_ids if i in self._replies]
        return [self._replies.pop(i) for i in reversed(ready)]  # replies may arrive in any order

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


def copied(record: Any) -> Any:
    """A record serialised and read again, as a receiver gets it: no object is shared with the sender's."""
    kind = type(record)
    assert kind in (ArrayRecord, MetricRecord, ConfigRecord)
    return (
        kind.inflate(record.deflate(), children=record.children)
        if kind is ArrayRecord
        else kind.inflate(record.deflate())
    )
