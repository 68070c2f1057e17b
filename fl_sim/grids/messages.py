"""What all grids do with single messages: addresses, arrays, settings, replies."""

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl_sim.blocks.learner import Settings
from fl_sim.engines.results import ClientResult
from fl_sim.tree import Tree
from fl_sim.wire import flower, records

CLIENT_ERROR = 2
"""Flower's error code for a ClientApp that raised."""


_NO_ARRAYS = ArrayRecord()


def check_settings(settings: Settings) -> None:
    """Raise ValueError where a strategy of Flower's wants a client half that a learner's clients do not have."""
    for key, advice in flower.CLIENT_HALVES.items():
        if settings.get(key):
            raise ValueError(
                f"the strategy asks clients for {key} = {settings[key]}, which these do not know; {advice}"
            )


def client_of(message: Message) -> int:
    """The virtual client that a message is for."""
    return message.metadata.dst_node_id - flower.FIRST_NODE


def arrays_of(message: Message) -> ArrayRecord:
    """The model that a message carries; messages of one round share the object, so that it is decoded once."""
    return next(iter(records.of(message.content, ArrayRecord).values()), None) or _NO_ARRAYS


def reply_to(
    message: Message, answer: ClientResult, partial: Tree | None, pooled_in: str, covered: list[str], block: int
) -> Message:
    """A client's reply: an error with its reason, its own arrays, or its part in a pooled block."""
    if answer.reason:
        return Message(Error(CLIENT_ERROR, answer.reason), reply_to=message)
    numbers = {
        **answer.metrics,
        "num-examples": answer.examples,
        "steps": answer.steps,
    }  # the machine's word counts: it weighs
    facts: dict[str, Any] = {"num-bytes": answer.num_bytes, "weight": answer.weight, "block": block}
    if pooled_in:
        facts |= {"pooled_in": pooled_in, **({"covers": covered} if covered else {})}
    content: dict[str, Any] = {
        "metrics": flower.trusted(MetricRecord, numbers),
        "facts": flower.trusted(ConfigRecord, facts),
    }
    if partial is not None:
        content["pool"] = records.held(partial)
    elif answer.reply:
        content["arrays"] = records.arrays(answer.reply)
    return flower.reply(flower.trusted(RecordDict, content), message)
