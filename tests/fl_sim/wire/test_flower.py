"""Messages and records that are built without Flower's constructors equal those that the constructors build."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fl_sim.wire import flower

CONTENT = RecordDict({"config": ConfigRecord({"lr": 0.1})})


@pytest.fixture(autouse=True)
def _server() -> None:
    flower.identify()


def facts_of(message: Message) -> dict[str, Any]:
    """The metadata of a message without its times."""
    return {k: v for k, v in vars(message.metadata).items() if k not in ("_created_at", "_ttl")}


def test_the_installed_flower_is_one_that_messages_are_built_for() -> None:
    assert flower._KNOWN  # otherwise Flower's constructors are used, which are slower


def test_requests_are_those_of_flower() -> None:
    messages = flower.requests([(CONTENT, 5), (CONTENT, 6), (RecordDict(), 5)], "train.again")
    for message, node in zip(messages, (5, 6, 5), strict=True):
        own = Message(message.content, node, "train.again")
        assert (
            facts_of(message) == facts_of(own) and vars(message).keys() == vars(own).keys() and not message.has_error()
        )
        assert message.metadata.ttl == own.metadata.ttl and own.metadata.created_at - message.metadata.created_at < 60
    assert messages[0].content is CONTENT and messages[0].metadata is not messages[1].metadata
    flower.set_message_id(messages[0], "1")
    assert messages[1].metadata.message_id == messages[2].metadata.message_id == ""
    assert flower.requests([], "train") == []


@pytest.mark.parametrize("more", [{}, {"group_id": "3", "ttl": 100.0}, {"dst_task_id": 9}])
def test_a_reply_is_that_of_flower(more: dict[str, Any]) -> None:
    message = Message(CONTENT, 7, "evaluate", **more)
    flower.set_message_id(message, "12")
    built, own = flower.reply(CONTENT, message), Message(CONTENT, reply_to=message)
    assert (
        facts_of(built) == facts_of(own) and built.content is CONTENT and built.has_content() and not built.has_error()
    )
    assert (built.metadata.src_node_id, built.metadata.dst_node_id, built.metadata.reply_to_message_id) == (
        7,
        flower.SERVER_NODE,
        "12",
    )
    for fact in ("created_at", "ttl"):
        assert getattr(built.metadata, fact) == pytest.approx(getattr(own.metadata, fact), abs=60)
    ends = [m.metadata.created_at + m.metadata.ttl for m in (built, own, message)]
    assert (
        ends[0] == pytest.approx(ends[1], abs=1e-3) == pytest.approx(ends[2], abs=1e-3)
    )  # it expires with what it replies to


@pytest.mark.parametrize(
    "kind, values",
    [
        (MetricRecord, {"loss": 0.5, "steps": 3}),
        (ConfigRecord, {"a": 1, "b": "x", "c": ["y"]}),
        (RecordDict, dict(CONTENT)),
    ],
)
def test_a_trusted_record_is_that_of_flower(kind: Any, values: dict[str, Any]) -> None:
    built, own = flower.trusted(kind, dict(values)), kind(dict(values))
    assert built == own and type(built) is kind and built.object_id == own.object_id
    with pytest.raises((TypeError, ValueError)):
        built[5] = None  # later changes are checked
