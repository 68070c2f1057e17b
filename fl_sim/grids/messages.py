"""What all grids do with single messages: addresses, arrays, settings, replies."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl_sim.blocks.learner import Settings
from fl_sim.engines.results import ClientResult
from fl_sim.grids.untrusted_replies.exchange_replies import read, zero_weight
from fl_sim.tree import Tree
from fl_sim.wire import codec, flower, payload, records
from fl_sim.wire.pool import Pool
from fl_sim.wire.set_records import SETS

Arrays = Mapping[str, ArrayRecord]
"""The records of a message that hold the model and its payload."""
Groups = dict[tuple[object, ...], tuple[Arrays, list[tuple[int, int, Settings]]]]
"""By type and model of messages: records, and (position in the exchange, client id, settings) of each message."""
CLIENT_ERROR = 2
"""Flower's error code for a ClientApp that raised."""


def check_settings(settings: Settings) -> None:
    """Raise ValueError where a strategy of Flower's needs a client half that a learner's clients do not have."""
    for key, advice in flower.CLIENT_HALVES.items():
        if settings.get(key):
            request = f"{key} = {settings[key]}"
            raise ValueError(f"the strategy asks clients for {request}, which these do not know; {advice}")


def client_of(message: Message) -> int:
    """The virtual client that a message is for."""
    return message.metadata.dst_node_id - flower.FIRST_NODE


def received_of(message: Message) -> Tree:
    """The model that a message carries, and its payload, as one tree."""
    return payload.decode(payload.records_of(message.content))


def settings_of(message: Message, seed: int, skip: str = "") -> Settings:
    """A message's ConfigRecords as one mapping.

    Parameters
    ----------
    message : Message
        Any message with content.
    seed : int
        The seed where the message names none.
    skip : str (default: "")
        The name of a record to leave out.
    """
    configs = records.of(message.content, ConfigRecord)
    merged = records.merged(record for name, record in configs.items() if name != skip)
    return {"seed": seed, **{k: tuple(v) if isinstance(v, list) else v for k, v in merged.items()}}


def answered(message: Message, call: Callable[[], object]) -> Message:
    """The reply that ``call()`` returns; an error reply where it raises, or returns no proper reply to ``message``.

    Every exception of a ClientApp, ``sys.exit`` included, is that client's failure, whose reason is the traceback.
    """
    try:
        reply = call()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return Message(Error(CLIENT_ERROR, traceback.format_exc()), reply_to=message)
    if not isinstance(reply, Message):
        reason = f"the ClientApp returned {type(reply).__name__}, not a Message"
    elif reply.metadata.reply_to_message_id != message.metadata.message_id:
        how = "make it with Message(..., reply_to=message)"
        reason = f"the ClientApp's Message is no reply to the one that it got; {how}"
    else:
        return reply
    return Message(Error(CLIENT_ERROR, reason), reply_to=message)


def reply_to(
    message: Message,
    answer: ClientResult,
    partial: Tree | None = None,
    pooled_in: str = "",
    covered: list[str] | None = None,
    block: int = 0,
    more: Mapping[str, float] | None = None,
) -> Message:
    """A client's reply: an error with its reason, its own arrays, or its part in a pooled block.

    Parameters
    ----------
    message : Message
        The message that the client received.
    answer : ClientResult
        The client's result.
    partial : Tree, optional
        The partial pool of the block, in the reply of its first surviving client.
    pooled_in : str
        Id of the message whose reply carries the pool; "" where the block was not pooled.
    covered : list of str, optional
        Ids of the messages whose replies are in ``partial``.
    block : int
        The block's number.
    more : Mapping, optional
        Further facts for the client's row in the log.
    """
    if answer.reason:
        return Message(Error(CLIENT_ERROR, answer.reason), reply_to=message)
    # a metric of the same name does not replace the number of examples, which is a weight
    numbers = {**answer.metrics, "num-examples": answer.examples, "steps": answer.steps}
    facts: dict[str, object] = {"num-bytes": answer.num_bytes, "weight": answer.weight, "block": block, **(more or {})}
    facts |= {k: x for k, x in (("seconds", answer.seconds), ("worker", answer.worker)) if x is not None}
    if answer.num_bytes_raw:
        facts["num-bytes-raw"] = answer.num_bytes_raw
    if pooled_in:
        facts |= {"pooled_in": pooled_in, **({"covers": covered} if covered else {})}
    content: dict[str, object] = {
        "metrics": flower.trusted(MetricRecord, numbers),
        "facts": flower.trusted(ConfigRecord, facts),
    }
    if answer.sets:
        content[SETS] = flower.trusted(ConfigRecord, answer.sets)
    if partial is not None:
        content["pool"] = records.encode(partial)
    elif answer.reply:
        content |= payload.encode(answer.reply)
    if answer.code:
        content[codec.RECORD] = records.encode(answer.code)
    return flower.reply(flower.trusted(RecordDict, content), message)


def pooled_replies(pool: Pool, form: Tree, members: Sequence[Message]) -> Iterator[Message]:
    """Single replies of a block, the first of which carries the partial pool of all; one of weight 0 is not in it.

    ``form``: what a reply looks like.
    """
    kept = [reply for reply in members if not zero_weight(read(reply))]
    covered = [reply.metadata.reply_to_message_id for reply in kept]
    partial: Tree | None = None
    for reply in kept:
        single = payload.decode(payload.records_of(reply.content))
        weight = torch.tensor([float(str(reply.content.config_records["facts"]["weight"]))], dtype=torch.float64)
        started = pool.start({k: form[k] for k in single}) if partial is None else partial
        partial = pool.add(started, {k: v[None] for k, v in single.items()}, weight)
    for reply in members:
        first = bool(kept) and reply is kept[0]
        pooled: dict[str, Any] = {"pooled_in": covered[0]} if reply in kept else {}
        pooled |= {"covers": covered} if first else {}
        facts = ConfigRecord({**reply.content.config_records["facts"], **pooled})
        content: dict[str, Any] = {k: v for k, v in reply.content.items() if not isinstance(v, ArrayRecord)}
        content["facts"] = facts
        if first and partial is not None:
            content["pool"] = records.encode(partial)
        reply.content = RecordDict(content)
        yield reply


class MessageReader:
    """Reads (records of arrays, settings) of messages, once for all messages that share their records."""

    def __init__(self, settings_of: Callable[[Message], Settings]) -> None:
        self.settings_of = settings_of
        self.contents: dict[int, tuple[Arrays, Settings]] = {}
        self.settings: dict[tuple[int, ...], Settings] = {}

    def __call__(self, message: Message) -> tuple[Arrays, Settings]:
        content = message.content
        known = self.contents.get(id(content))
        if known is None:
            configs = tuple(map(id, records.of(content, ConfigRecord).values()))
            if configs not in self.settings:
                self.settings[configs] = self.settings_of(message)
                check_settings(self.settings[configs])
            known = self.contents[id(content)] = payload.records_of(content), self.settings[configs]
        return known


def grouped(messages: Iterable[Message], settings_of: Callable[[Message], Settings]) -> Groups:
    """The messages of an exchange by type and model."""
    read, groups = MessageReader(settings_of), Groups()
    for position, message in enumerate(messages):
        arrays, settings = read(message)
        group = groups.setdefault((message.metadata.message_type, *map(id, arrays.values())), (arrays, []))
        group[1].append((position, client_of(message), settings))
    return groups
