"""The one place that touches anything of Flower beyond its documented API.

An own ``Grid`` needs three private things (flwr 1.41): the process-global identity that ``Message``
reads, an id for each message, an empty ``Run``. Foreign strategies draw from global generators;
they are keyed here by (seed, round), so that Flower's own strategies become reproducible. What clients
and strategies get is copied as a wire would, so that none can change another's.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_sim import rng

Record = TypeVar("Record", ConfigRecord, MetricRecord, RecordDict)
SERVER_NODE = 1
"""Node id of the server; virtual client c is node c + FIRST_NODE."""
FIRST_NODE = 2
CLIENT_HALVES = {
    "proximal-mu": "FedProx adds its proximal term in the client's training: use this project's own (--strategy fedprox)",
    "clipping_norm": "clients must clip their own updates: give a ClientApp with fixedclipping_mod or adaptiveclipping_mod",
}
"""Settings by which Flower's own strategies ask a client for its half of the algorithm, and what to do where it has none."""


def identify(run_id: int = 1) -> Run:
    """Give this process the identity of a server, so that messages can be made; returns an empty Run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    return Run.create_empty(run_id)


def trusted(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of ``values``, which must be of the types that it takes: Flower's constructors check every one, 3 us a time."""
    made = kind()
    if "_data" not in vars(made):  # not the Flower that this was written for
        return kind(values)
    made.__dict__["_data"] = values
    return made


def requests(contents: Iterable[tuple[RecordDict, int]], message_type: str) -> list[Message]:
    """``Message(content, node, message_type)`` of each (content, node)."""
    made: list[Message] = []
    for content, node in contents:
        if not made or not _KNOWN:
            made.append(Message(content, node, message_type))
        else:
            made.append(_message(vars(made[0].metadata) | {"_dst_node_id": node}, content))
    return made


def reply(content: RecordDict, message: Message) -> Message:
    """``Message(content, reply_to=message)``, at a third of the cost: a round of a thousand clients makes two thousand messages."""
    if not _KNOWN:
        return Message(content, reply_to=message)
    asked, now = vars(message.metadata), time.time()
    facts = {
        "_message_id": "", "_reply_to_message_id": asked["_message_id"], "_delivered_at": "",
        "_src_node_id": asked["_dst_node_id"], "_dst_node_id": asked["_src_node_id"],
        "_src_task_id": asked["_dst_task_id"], "_dst_task_id": asked["_src_task_id"],
        "_created_at": now, "_ttl": asked["_created_at"] + asked["_ttl"] - now,
    }  # fmt: skip
    return _message(asked | facts, content)


def _message(facts: dict[str, Any], content: RecordDict) -> Message:
    made, metadata = Message.__new__(Message), Metadata.__new__(Metadata)
    metadata.__dict__.update(facts)
    made.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return made


def _known() -> bool:
    """Whether messages are made as in the Flower that this was written for."""
    facts = "run_id message_id src_node_id dst_node_id src_task_id dst_task_id reply_to_message_id group_id created_at ttl message_type"
    made = Message(RecordDict(), metadata=Metadata(1, "", 1, 2, "", "", 0.0, 1.0, "train"))  # type: ignore[call-overload]
    same = vars(made.metadata).keys() == {f"_{name}" for name in (*facts.split(), "delivered_at")}
    return bool(same and vars(made).keys() == {"_metadata", "_content", "_error"})


_KNOWN = _known()


class Held(Array):
    """An Array that stays one: its bytes are made when someone asks for them, which inside a process nobody does."""

    values: np.ndarray

    def __init__(self, values: np.ndarray) -> None:
        self.__dict__.update(dtype=str(values.dtype), shape=tuple(values.shape), stype="numpy.ndarray", values=values)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The serialised array, kept from then on."""
        made: bytes = self.__dict__.get("_data") or Array(self.values).data
        self.__dict__["_data"] = made
        return made

    def numpy(self) -> np.ndarray:
        """A copy of the array: the receiver's own."""
        return np.array(self.values)

    def __reduce__(self) -> tuple[type[Array], tuple[np.ndarray]]:
        return Array, (self.values,)


Held.__qualname__ = Array.__qualname__  # what a receiver elsewhere is told to make of it


def set_message_id(message: Message, message_id: str) -> None:
    """Name a message; Flower leaves this to the SuperLink."""
    message.metadata.__dict__["_message_id"] = message_id


def isolated(content: RecordDict) -> RecordDict:
    """The same records as objects of their own; arrays' bytes are shared, they cannot change.

    Flower's strategies put one RecordDict into every message, and between processes each client gets its own.
    """
    own = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            own[name] = ArrayRecord(dict(record))
        else:
            values: Any = {k: list(v) if isinstance(v, list) else v for k, v in record.items()}
            own[name] = MetricRecord(values) if isinstance(record, MetricRecord) else ConfigRecord(values)
    return own


def delivered(message: Message) -> Message:
    """A message as its receiver gets it: same id, content of its own."""
    facts = message.metadata
    copy = Message(
        isolated(message.content), facts.dst_node_id, facts.message_type, ttl=facts.ttl, group_id=facts.group_id
    )
    set_message_id(copy, facts.message_id)
    return copy


def context(node: int, node_config: dict[str, Any], state: RecordDict, run_config: dict[str, Any]) -> Context:
    """The Context that an app gets, with records and dicts of its own."""
    return Context(
        run_id=1, node_id=node, node_config=dict(node_config), state=isolated(state), run_config=dict(run_config)
    )


def innermost(strategy: Strategy) -> Strategy:
    """The strategy inside its wrappers (Flower's DP wrappers keep it as ``strategy``)."""
    inner = getattr(strategy, "strategy", None)
    return innermost(inner) if isinstance(inner, Strategy) else strategy


def averages(strategy: Strategy) -> bool:
    """Whether Flower's own code pools the replies: element by element, whatever their form."""
    return type(innermost(strategy)).aggregate_train.__module__.startswith("flwr.")


def weight_key(strategy: Strategy) -> str:
    """The metric by which a strategy weights replies."""
    return str(getattr(innermost(strategy), "weighted_by_key", "num-examples"))


def has_main(server_app: ServerApp) -> bool:
    """Whether a ServerApp has a function of its own (``@app.main()``); one of the API before messages has none."""
    return server_app._main is not None


@contextmanager
def quiet(wanted: bool = True, least: int = logging.WARNING) -> Iterator[None]:
    """While open, Flower logs only what is at ``least`` a warning: its lines a round would tear the progress bar.

    By a filter: a changed level makes every logger of the process forget what it may say, 0.2 ms a time.
    """
    logger = logging.getLogger("flwr")

    def loud(record: logging.LogRecord) -> bool:
        return record.levelno >= least

    if wanted:
        logger.addFilter(loud)
    try:
        yield
    finally:
        logger.removeFilter(loud)


@contextmanager
def keyed_hook(seed: int, hook: str, server_round: int) -> Iterator[None]:
    """Around a hook of a strategy: whatever it draws from global generators is keyed by (seed, hook, round)."""
    with rng.keyed_globals(rng.key(seed, hook, server_round)):
        yield


@contextmanager
def driven_by(start: Any) -> Iterator[None]:
    """While open, ``Strategy.start`` of every strategy that does not override it is ``start(strategy, grid, initial_arrays, ...)``."""
    original = Strategy.start
    Strategy.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start = original  # type: ignore[method-assign]


@contextmanager
def keeping_identity() -> Iterator[None]:
    """While open, a SimulationGrid may be built, which makes this process its server; Flower's own identity comes back after."""
    before = TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id
    try:
        yield
    finally:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = before
