"""DeployedGrid: real devices behind Flower's ``Grid``, presented as a simulation presents its virtual clients.

A strategy sees clients 0..C-1, by partition id. A ``query`` message asks each node which client it is, because node ids
are random and new after a restart. Replies are passed on in the order in which a simulation's blocks answer (steps
descending, position), and pooled block by block where the strategy names a pool, so that the sums have the same bits.
A message that gets no answer in time, or whose node is not connected, gets an error reply.

Legend: C clients.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_sim.blocks.plan import even_slices
from fl_sim.grids import no_answer
from fl_sim.grids.base import ClientGrid
from fl_sim.grids.messages import CLIENT_ERROR, check_settings, pooled_replies, settings_of
from fl_sim.grids.nodes import EXPERIMENT, POLL_S, Nodes, reason_of
from fl_sim.grids.pulled_replies import PulledReplies
from fl_sim.grids.untrusted_replies.coded_replies import Decoder, not_coded
from fl_sim.grids.untrusted_replies.device_replies import from_device, model_problems
from fl_sim.grids.untrusted_replies.exchange_replies import MOST_CHARS
from fl_sim.learning.loss import Loss
from fl_sim.tree import Tree
from fl_sim.wire import payload, records

NO_REPLY, NO_NODE = 4, no_answer.NODE_UNAVAILABLE
"""Flower's error codes for a missing reply and for a missing node."""
GRACE_S = 10.0
"""How much longer a message lives than this grid waits for its reply: this grid, not Flower, reports the timeout."""


MOST_CODE = 9999
"""The largest error code that a device may send; larger ones have a meaning inside this process (``no_answer``)."""
PULL_S = 30.0
"""How long after the timeout a reply that came in time may take to be pulled."""


class DeployedGrid(ClientGrid):
    """Clients 0..C-1 on the nodes of a Flower grid.

    Parameters
    ----------
    grid : Grid
        Flower's own, as a ServerApp gets it.
    num_clients : int
        C: how many clients there must be.
    experiment : Mapping
        What a device needs to know of the experiment; it goes into every message.
    holdout_clients : int (default: 0)
        Clients with the last ids, which never train.
    allowed_missing : int (default: 0)
        How many of the clients' nodes may be missing at the start.
    node_timeout_s : float (default: 300)
        How long to wait for all nodes to connect and to report which client each one is.
    timeout_s : float (default: 3600)
        How long to wait for replies, where the sender sets no shorter time; a message lives ``GRACE_S`` longer.
    block_size : int (default: 16)
        Clients a block, as in the simulation whose bits this grid repeats.
    statistics : Sequence of str (default: none)
        The model's leaves that are running statistics.
    trainable : Sequence of str (default: none)
        The model's leaves that each reply to training must hold where replies are pooled; none: all but statistics.
    loss : Loss (default: None)
        The network and the task that devices build too; needed for a strategy whose clients keep leaves at home.
    max_examples : float (default: 1e9)
        The largest number of samples that a device is believed to have.
    nodes : Nodes (default: None)
        What an earlier grid of the same run knows about the nodes.
    decoder : Decoder (default: none)
        Decodes replies that a codec has coded.

    The states that a checkpoint keeps are ``{"round": int64}``, the last round whose new state was accepted from a
    client; the state itself lies on its device.
    """

    own_pools = True
    asks_after_failure = False

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        experiment: Mapping[str, object],
        *,
        holdout_clients: int = 0,
        allowed_missing: int = 0,
        node_timeout_s: float = 300.0,
        timeout_s: float = 3600.0,
        block_size: int = 16,
        statistics: Sequence[str] = (),
        trainable: Sequence[str] = (),
        loss: Loss | None = None,
        max_examples: float = 1e9,
        nodes: Nodes | None = None,
        decoder: Decoder = not_coded,
    ) -> None:
        super().__init__()
        self.grid, self.num_clients, self.holdout_clients = grid, num_clients, holdout_clients
        self.experiment = records.config(experiment)
        self.allowed_missing, self.node_timeout_s, self.timeout_s = allowed_missing, node_timeout_s, timeout_s
        self.block_size, self.statistics = block_size, statistics
        self.trainable, self.max_examples, self.loss = trainable, max_examples, loss
        self.nodes = nodes or Nodes(num_clients)
        self.nodes.max_examples, self.nodes.tolerant = max_examples, allowed_missing > 0
        self._found = False
        self.decoder = decoder
        self._reported: dict[int, int] = {}
        self._refused: set[int] = set()

    # Flower's Grid --------------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Set Flower's description of the run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """Flower's description of the run."""
        return self.grid.run

    def get_node_ids(self) -> Sequence[int]:
        """Clients that may train, ascending.

        The first call waits for their nodes. Raises RoundFailed that names those missing.
        """
        if not self._found:
            self.nodes.find(self.grid, self.experiment, self.node_timeout_s, self.allowed_missing)
            self._found = True
            self._report_nodes()
        return range(self.num_clients - self.holdout_clients - self.validation_clients)

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """Clients that never train."""
        return range(self.num_clients - self.holdout_clients, self.num_clients)

    @property
    def validation_node_ids(self) -> Sequence[int]:
        """The clients before these, which never train either."""
        return range(end := self.num_clients - self.holdout_clients)[end - self.validation_clients :]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """One reply a message: errors as they come, then the good ones in the order of a simulation's blocks.

        A message without an answer after ``timeout`` seconds, or ``timeout_s``, gets an error reply, and its device
        need not answer later. Raises ValueError for a message to a client that does not exist.
        """
        sent = list(messages)
        for message in sent:
            self._number(message)
            client = message.metadata.dst_node_id
            if client not in range(self.num_clients):
                raise ValueError(f"message to client {client}: this grid has clients 0..{self.num_clients - 1}")
            check_settings(settings_of(message, 0))
        return self._exchanged(sent, self.timeout_s if timeout is None else min(timeout, self.timeout_s))

    # Exchanges ------------------------------------------------------------------------------------------------------

    def _exchanged(self, sent: Sequence[Message], timeout_s: float) -> Iterator[Message]:
        """Send messages, wait for their replies, and yield these in the order that ``send_and_receive`` describes."""
        end = time.monotonic() + timeout_s
        clients = [message.metadata.dst_node_id for message in sent]
        wait_s = min(timeout_s, self.node_timeout_s)
        absent = set(self.nodes.absent(self.grid, self.experiment, clients, wait_s, patient=False))
        self._report_nodes()
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
        pulled = PulledReplies(self.grid)
        while waiting:
            late = time.monotonic() > end  # before the replies are pulled: those that came in time count
            before = len(waiting)
            for number, reply, why in pulled(waiting):
                answer = self._read(waiting.pop(number), reply, why)
                if answer.has_error():
                    yield answer
                else:
                    good.append(answer)
            slow = pulled.running() and time.monotonic() < end + PULL_S
            if len(waiting) == before and late and not slow:
                break
            if waiting and len(waiting) == before:
                time.sleep(POLL_S)
        for message in waiting.values():
            yield Message(Error(NO_REPLY, f"no reply within {timeout_s:g} s"), reply_to=message)
        yield from self._in_order(sent, good)

    def _read(self, message: Message, reply: Message | None, why: str) -> Message:
        """A device's reply with the fields that were checked, or an error reply that says why it is not used."""
        if reply is None or not reply.has_content():
            failed = reply is not None and reply.has_error()
            error = reply.error if reply is not None and failed else Error(CLIENT_ERROR, why or "an empty reply")
            code = error.code if 0 <= error.code <= MOST_CODE else CLIENT_ERROR
            return Message(Error(code, reason_of(error)[:MOST_CHARS]), reply_to=message)
        said = self.nodes.facts[message.metadata.dst_node_id]
        trains = message.metadata.message_type.startswith("train")
        settings = settings_of(message, 0)
        content, why = from_device(reply.content, settings, said, trains, self.max_examples)
        if trains and not why:
            content, why = self.decoder(content, settings, self._form(message))
        return Message(Error(CLIENT_ERROR, why), reply_to=message) if why else Message(content, reply_to=message)

    def _report_nodes(self) -> None:
        """Record an event for each node that is new, and for each that was refused."""
        for client, node in self.nodes.of.items():
            if self._reported.get(client) != node:
                self._reported[client] = node
                facts = {k: v for k, v in self.nodes.facts[client].items() if k != "partition-id"}
                self.on_event("node_found", client=client, node=str(node), **facts)
        for node, reason in self.nodes.refused.items():
            if node not in self._refused:
                self._refused.add(node)
                self.on_event("node_refused", node=str(node), reason=reason[:MOST_CHARS])

    def _addressed(self, message: Message, timeout_s: float) -> Message:
        """The message for the client's node, with the description of the experiment."""
        client, facts = message.metadata.dst_node_id, message.metadata
        own = self.experiment
        if client in self.states:
            own = ConfigRecord({**own, "state-round": int(self.states[client]["round"])})
        content, node = RecordDict({**message.content, EXPERIMENT: own}), self.nodes.of[client]
        return Message(content, node, facts.message_type, ttl=timeout_s + GRACE_S, group_id=facts.group_id)

    def _in_order(self, sent: Sequence[Message], good: list[Message]) -> Iterator[Message]:
        """Good replies in the order of a simulation's blocks, pooled block by block where there is a pool."""
        position = {message.metadata.message_id: n for n, message in enumerate(sent)}

        def order(reply: Message) -> tuple[float, int]:
            steps = float(records.numbers(reply.content).get("steps", 0))
            return -steps, position[reply.metadata.reply_to_message_id]

        pool = self.pool if sent and sent[0].metadata.message_type.startswith("train") else None
        if pool is not None and good:
            first = sent[position[good[0].metadata.reply_to_message_id]]
            form = self._form(first)
            beside = [k for k in form if payload.BETWEEN in k]
            trainable = self.trainable or tuple(set(form) - set(self.statistics))
            problems = model_problems(good, form, {*beside, *(k for k in trainable if k in form)})
            for reply, why in zip(good, problems, strict=True):
                if why:
                    message = sent[position[reply.metadata.reply_to_message_id]]
                    yield Message(Error(CLIENT_ERROR, why), reply_to=message)
            good = [reply for reply, why in zip(good, problems, strict=True) if not why]
        groups: dict[tuple[int, ...], list[Message]] = {payload.identities(m.content): [] for m in sent}
        for reply in sorted(good, key=order):
            groups[payload.identities(sent[position[reply.metadata.reply_to_message_id]].content)].append(reply)
        blocks = [group[part] for group in groups.values() for part in even_slices(len(group), self.block_size)]
        for block, members in enumerate(blocks):
            for reply in members:
                self._accept(reply, block)
            message = sent[position[members[0].metadata.reply_to_message_id]]
            if pool is not None:
                yield from pooled_replies(pool, self._form(message), members)
            else:
                yield from members

    def _accept(self, reply: Message, block: int) -> None:
        """Write the number of its block into a good reply, and keep the round of its client's new state."""
        facts = reply.content.config_records.get("facts")
        if facts is not None:
            facts["block"] = block
            if "state-round" in facts:
                self.states[reply.metadata.src_node_id] = {"round": torch.tensor(int(str(facts["state-round"])))}

    def _form(self, message: Message) -> Tree:
        """What replies to a message for training look like, in the order of a simulation's."""
        model, _ = payload.split(payload.decode(payload.records_of(message.content)))
        return self.reply_form(model)
