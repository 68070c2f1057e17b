"""What is made here without Flower's constructors is what they make."""

import logging
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fl_sim.wire import flower

CONTENT = RecordDict({"config": ConfigRecord({"lr": 0.1})})


@pytest.fixture(autouse=True)
def _server() -> None:
    flower.identify()


def facts_of(message: Message) -> dict[str, Any]:
    """Everything but the clock."""
    return {k: v for k, v in vars(message.metadata).items() if k not in ("_created_at", "_ttl")}


def test_this_flower_is_the_one_that_messages_are_made_for() -> None:
    assert flower._KNOWN  # else Flower's constructors are used: right, and slower


def test_requests_are_those_of_flower() -> None:
    made = flower.requests([(CONTENT, 5), (CONTENT, 6), (RecordDict(), 5)], "train.again")
    for message, node in zip(made, (5, 6, 5), strict=True):
        own = Message(message.content, node, "train.again")
        assert (
            facts_of(message) == facts_of(own) and vars(message).keys() == vars(own).keys() and not message.has_error()
        )
        assert message.metadata.ttl == own.metadata.ttl and own.metadata.created_at - message.metadata.created_at < 60
    assert made[0].content is CONTENT and made[0].metadata is not made[1].metadata
    flower.set_message_id(made[0], "1")
    assert made[1].metadata.message_id == made[2].metadata.message_id == ""
    assert flower.requests([], "train") == []


@pytest.mark.parametrize("more", [{}, {"group_id": "3", "ttl": 100.0}, {"dst_task_id": 9}])
def test_a_reply_is_that_of_flower(more: dict[str, Any]) -> None:
    message = Message(CONTENT, 7, "evaluate", **more)
    flower.set_message_id(message, "12")
    made, own = flower.reply(CONTENT, message), Message(CONTENT, reply_to=message)
    assert facts_of(made) == facts_of(own) and made.content is CONTENT and made.has_content() and not made.has_error()
    assert (made.metadata.src_node_id, made.metadata.dst_node_id, made.metadata.reply_to_message_id) == (
        7,
        flower.SERVER_NODE,
        "12",
    )
    for fact in ("created_at", "ttl"):
        assert getattr(made.metadata, fact) == pytest.approx(getattr(own.metadata, fact), abs=60)
    ends = [m.metadata.created_at + m.metadata.ttl for m in (made, own, message)]
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
    made, own = flower.trusted(kind, dict(values)), kind(dict(values))
    assert made == own and type(made) is kind and made.object_id == own.object_id
    with pytest.raises((TypeError, ValueError)):
        made[5] = None  # it checks what is set later


def test_flower_is_quiet_while_asked_and_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("flwr")
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with flower.quiet():
            logger.info("a line a round")
            with flower.quiet(least=logging.ERROR):
                logger.warning("hidden too")
            logger.warning("worth it")
            with flower.quiet(wanted=False):
                logger.info("still hidden")
        logger.info("after")
    finally:
        logger.removeHandler(handler)
    assert seen == ["worth it", "after"]
