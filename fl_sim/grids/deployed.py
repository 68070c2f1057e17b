"""DeployedGrid: real devices behind Flower's ``Grid``, presented as a simulation presents its virtual clients. No paper.

A strategy sees clients 0..C-1, by partition id. Which node is which client is asked by a ``query`` message and
remembered, because node ids are random and new after a restart. Replies are handed on in the order in which a simulation's
blocks answer (steps descending, position) and pooled block by block where the strategy names a pool, so that the
sums have the same bits. A message that gets no answer in time, or whose node is not there, gets an error in its place.

Legend: C clients.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.blocks.plan import even_slices
from fl_sim.executors.base import Executor
from fl_sim.grids.messages import CLIENT_ERROR, check_settings
from fl_sim.grids.nodes import EXPERIMENT, POLL_S, Nodes, reason_of
from fl_sim.grids.simulation import Event
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from fl_sim.wire.pool import Pool

NO_REPLY, NO_NODE = 4, 5
GRACE_S = 10.0
"""A message lives so much longer than anyone waits for its reply: who gives up is this side, with its own words."""
"""Flower's error codes for a reply, and for a node, that is not to be had."""


class DeployedGrid(Grid):
    """Clients 0..C-1 on the nodes of a Flower grid.

    Parameters
    ----------
    grid : Grid
        Flower's own, as a ServerApp gets it.
    num_clients : int
        C: how many clients there must be.
    experiment : Mapping
        What a device needs to know of the experiment; goes into every message.
    holdout_clients : int (default: 0)
        The last ids never train.
    allowed_missing : int (default: 0)
        How many of the clients' nodes may be missing at the start.
    node_timeout_s : float (default: 300)
        How long to wait for all nodes to be there and to say who they are.
    timeout_s : float (default: 3600)
        How long to wait for replies, where whoever sends does not want them sooner; a message lives ``GRACE_S`` longer.
    block_size : int (default: 16)
        Clients a block: the simulation whose bits this grid repeats.
    nodes : Nodes (default: None)
        What an earlier grid of the same run found out.
    """

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        experiment: Mapping[str, Any],
        *,
        holdout_clients: int = 0,
        allowed_missing: int = 0,
        node_timeout_s: float = 300.0,
        timeout_s: float = 3600.0,
        block_size: int = 16,
        nodes: Nodes | None = None,
    ) -> None:
        self.grid, self.num_clients, self.holdout_clients = grid, num_clients, holdout_clients
        self.experiment = records.config(experiment)
        self.allowed_missing, self.node_timeout_s, self.timeout_s = allowed_missing, node_timeout_s, timeout_s
        self.block_size = block_size
        self.nodes = nodes or Nodes(num_clients)
        self.pool: Pool | None = None
        """Where it is set, replies to ``train`` are reduced to one partial pool a block."""
        self.states: dict[int, Tree] = {}
        """Client -> ``{"round": int64}``, the last whose new state was accepted from it; the state itself lies on the device."""
        self.on_event: Event = lambda kind, **facts: None
        self.chunk = 0
        self.executor: Executor | None = None
        """None: there is nobody here who runs blocks."""
        self._sent, self._found = 0, False
        self._told: dict[int, int] = {}
        self._mailbox: dict[str, Message] = {}
        self._model: tuple[ArrayRecord | None, Tree] = (None, {})

    # Flower's Grid -----------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Take over a Run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run of this grid."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Sequence[int]:
        """Clients that may train, ascending. The first call waits for their nodes, and raises RoundFailed that names those missing."""
        if not self._found:
            self.nodes.find(self.grid, self.experiment, self.node_timeout_s, self.allowed_missing)
            self._found = True
            self._tell()
        return range(self.num_clients - self.holdout_clients)

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """Clients that never train."""
        return range(self.num_clients - self.holdout_clients, self.num_clients)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send, wait for all answers, and keep them for ``pull_messages``."""
        pushed = list(messages)
        self._mailbox.update({reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(pushed)})
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each handed out once."""
        return [self._mailbox.pop(i) for i in message_ids if i in self._mailbox]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """One reply a message: errors as they come, then the good ones in the order of a simulation's blocks.

        What is not answered within ``timeout`` seconds, or ``timeout_s``, is an error, and its device need not answer later.
        """
        sent = list(messages)
        for message in sent:
            self._sent += 1
            flower.set_message_id(message, f"{self._sent:012d}")
            if message.metadata.dst_node_id not in range(self.num_clients):
                raise ValueError(
                    f"message to client {message.metadata.dst_node_id}: this grid has clients 0..{self.num_clients - 1}"
                )
            check_settings(records.merged(records.of(message.content, ConfigRecord).values()))
        return self._replies(sent, self.timeout_s if timeout is None else min(timeout, self.timeout_s))

    def close(self) -> None:
        """Nothing to let go: Flower owns the connection."""

    # Exchanges ---------------------------------------------------------------------------------------------------

    def _replies(self, sent: Sequence[Message], timeout_s: float) -> Iterator[Message]:
        """See ``send_and_receive``."""
        end = time.monotonic() + timeout_s
        wanted = [message.metadata.dst_node_id for message in sent]
        absent = set(
            self.nodes.look(self.grid, self.experiment, wanted, min(timeout_s, self.node_timeout_s), patient=False)
        )
        self._tell()
        for message in sent:
            if message.metadata.dst_node_id in absent:
                yield Message(Error(NO_NODE, "its node is not connected"), reply_to=message)
        real = [(m, self._addressed(m, timeout_s)) for m in sent if m.metadata.dst_node_id not in absent]
        ids = self.grid.push_messages([message for _, message in real]) if real else []
        waiting: dict[str, Message] = {}
        for (message, _), number in zip(real, ids, strict=True):
            if number:
                waiting[number] = message
            else:
                yield Message(Error(NO_NODE, "the SuperLink did not take the message"), reply_to=message)
        good: list[Message] = []
        while waiting:
            late = time.monotonic() > end  # looked at before the replies: what came in time counts
            replies = list(self.grid.pull_messages(list(waiting)))
            for reply in replies:
                message = waiting.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    yield Message(Error(reply.error.code, reason_of(reply.error)), reply_to=message)
                else:
                    good.append(Message(reply.content, reply_to=message))
            if not replies and late:
                break
            if waiting and not replies:
                time.sleep(POLL_S)
        for message in waiting.values():
            yield Message(Error(NO_REPLY, f"no reply within {timeout_s:g} s"), reply_to=message)
        yield from self._in_order(sent, good)

    def _tell(self) -> None:
        """An event for each node that is new."""
        for client, node in self.nodes.of.items():
            if self._told.get(client) != node:
                self._told[client] = node
                self.on_event(
                    "node_found",
                    client=client,
                    node=str(node),
                    **{k: v for k, v in self.nodes.said[client].items() if k != "partition-id"},
                )

    def _addressed(self, message: Message, timeout_s: float) -> Message:
        """The message as it goes to the client's node."""
        client, facts = message.metadata.dst_node_id, message.metadata
        own = self.experiment
        if client in self.states:
            own = ConfigRecord({**own, "state-round": int(self.states[client]["round"])})
        content = RecordDict({**message.content, EXPERIMENT: own})
        return Message(
            content, self.nodes.of[client], facts.message_type, ttl=timeout_s + GRACE_S, group_id=facts.group_id
        )

    def _in_order(self, sent: Sequence[Message], good: list[Message]) -> Iterator[Message]:
        """Good replies as a simulation's blocks give them."""
        position = {message.metadata.message_id: n for n, message in enumerate(sent)}
        good.sort(
            key=lambda r: (-float(records.numbers(r.content).get("steps", 0)), position[r.metadata.reply_to_message_id])
        )
        for block, part in enumerate(even_slices(len(good), self.block_size)):
            members = good[part]
            for reply in members:
                self._accept(reply, block)
            asked = sent[position[members[0].metadata.reply_to_message_id]]
            if self.pool is not None and asked.metadata.message_type.startswith("train"):
                yield from self._pooled(self.pool, asked, members)
            else:
                yield from members

    def _accept(self, reply: Message, block: int) -> None:
        facts = reply.content.config_records.get("facts")
        if facts is not None:
            facts["block"] = block
            if "state-round" in facts:
                self.states[reply.metadata.src_node_id] = {"round": torch.tensor(int(str(facts["state-round"])))}

    def _pooled(self, pool: Pool, asked: Message, members: Sequence[Message]) -> Iterator[Message]:
        """A block's replies with one partial pool, in the first; what does not fit the model that was sent is an error, not pooled."""
        model = self._decoded(next(iter(records.of(asked.content, ArrayRecord).values())))
        partial: Tree | None = None
        kept: list[Message] = []
        for reply in members:
            single, reason = _trained(reply, model)
            if reason:
                yield Message(Error(CLIENT_ERROR, reason), reply_to=sent_of(reply))
                continue
            weight = torch.tensor([float(str(reply.content.config_records["facts"]["weight"]))], dtype=torch.float64)
            started = pool.start({k: model[k] for k in single}) if partial is None else partial
            partial = pool.add(started, {k: v[None] for k, v in single.items()}, weight)
            kept.append(reply)
        covered = [reply.metadata.reply_to_message_id for reply in kept]
        for n, reply in enumerate(kept):
            facts = ConfigRecord(
                {**reply.content.config_records["facts"], "pooled_in": covered[0], **({} if n else {"covers": covered})}
            )
            content: dict[str, Any] = {k: v for k, v in reply.content.items() if not isinstance(v, ArrayRecord)} | {
                "facts": facts
            }
            if n == 0 and partial is not None:
                content["pool"] = records.arrays(partial)
            reply.content = RecordDict(content)
            yield reply

    def _decoded(self, record: ArrayRecord) -> Tree:
        if self._model[0] is not record:
            self._model = (record, records.model(record))
        return self._model[1]


def sent_of(reply: Message) -> Message:
    """A stand-in for the message that a reply answers: what another reply to it is made from."""
    facts = reply.metadata
    message = Message(RecordDict(), facts.src_node_id, facts.message_type, group_id=facts.group_id)
    flower.set_message_id(message, facts.reply_to_message_id)
    return message


def _trained(reply: Message, model: Tree) -> tuple[Tree, str]:
    """(the model or update in a reply, why it must not be pooled or nothing)."""
    arrays = records.of(reply.content, ArrayRecord)
    facts = reply.content.config_records.get("facts", ConfigRecord())
    if len(arrays) != 1 or "weight" not in facts:
        return (
            {},
            f"a reply with {len(arrays)} models and {'a' if 'weight' in facts else 'no'} weight; it must have one of each",
        )
    [record] = arrays.values()
    try:
        single = records.model(record)
        expected = {k: model[k] for k in single if k in model}
        problem = records.problem(record, expected, single) or records.weight_problem(facts, "weight")
    except (ValueError, EOFError, TypeError) as error:
        return {}, f"arrays that cannot be read: {error}"
    return single, problem
