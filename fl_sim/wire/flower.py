"""The only module, with ``legacy_flower``, that uses anything of Flower beyond its documented API.

A ``Grid`` of one's own needs three private parts of flwr 1.41 and 1.42: the process-global identity that ``Message``
reads, an id for each message, and an empty ``Run``. Foreign strategies draw from global generators, which are keyed
here by (seed, round), so that Flower's own strategies are reproducible. Messages' contents are copied as a network
would copy them, so that no client can change another's.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Strategy
from flwr.supercore.constant import DEFAULT_SIMULATION_CONFIG
from flwr.supercore.differential_privacy import KEY_NORM_BIT
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_sim import rng

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord, RecordDict)
SERVER_NODE = 1
"""Node id of the server."""
FIRST_NODE = 2
"""Node id of virtual client 0; client c is node c + FIRST_NODE."""
DEFAULT_NODES = int(DEFAULT_SIMULATION_CONFIG.num_supernodes or 2)
"""Nodes of Flower's own simulation where neither the app nor the user says how many."""
_OWN_PROX = "use this project's own (--strategy fedprox)"
_CLIPPING_APP = "give a ClientApp with fixedclipping_mod or adaptiveclipping_mod"
CLIENT_HALVES = {
    "proximal-mu": f"FedProx adds its proximal term in the client's training: {_OWN_PROX}",
    "clipping_norm": f"clients must clip their own updates: {_CLIPPING_APP}",
}
"""Setting by which a strategy of Flower's needs a client half of its own -> advice where clients do not have it."""


def identify(run_id: int = 1) -> Run:
    """Give this process the identity of a server, which creating messages requires; returns an empty Run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    return Run.create_empty(run_id)


def trusted(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of ``values``, whose types must be right; Flower's constructors check them, which takes 3 us a value."""
    if "_data" not in (facts := _facts_of_empty(kind)):  # another version of Flower
        return kind(values)
    (record := kind.__new__(kind)).__dict__.update(facts, _data=values)
    return record


@cache
def _facts_of_empty(kind: type[Record]) -> dict[str, object]:
    """The attributes of a record without values; all but the values are functions, which records share."""
    return dict(vars(kind()))


def requests(contents: Iterable[tuple[RecordDict, int]], message_type: str) -> list[Message]:
    """``Message(content, node, message_type)`` of each (content, node)."""
    contents = list(contents)
    if not _KNOWN or not contents:
        return [Message(content, node, message_type) for content, node in contents]
    identity = TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id
    facts, now = _facts(message_type, identity), time.time()
    return [_message({**facts, "_dst_node_id": node, "_created_at": now}, content) for content, node in contents]


@cache
def _facts(message_type: str, identity: tuple[object, ...]) -> dict[str, object]:
    """What Flower's constructor writes into a message's metadata, while this process has that identity."""
    return dict(vars(Message(RecordDict(), FIRST_NODE, message_type).metadata))


def reply(content: RecordDict, message: Message) -> Message:
    """``Message(content, reply_to=message)`` in a third of the time; a round of 1000 clients has 2000 messages."""
    if not _KNOWN:
        return Message(content, reply_to=message)
    request, now = vars(message.metadata), time.time()
    facts = {
        "_message_id": "", "_reply_to_message_id": request["_message_id"], "_delivered_at": "",
        "_src_node_id": request["_dst_node_id"], "_dst_node_id": request["_src_node_id"],
        "_src_task_id": request["_dst_task_id"], "_dst_task_id": request["_src_task_id"],
        "_created_at": now, "_ttl": request["_created_at"] + request["_ttl"] - now,
    }  # fmt: skip
    return _message(request | facts, content)


def _message(facts: dict[str, object], content: RecordDict) -> Message:
    message, metadata = Message.__new__(Message), Metadata.__new__(Metadata)
    metadata.__dict__.update(facts)
    message.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return message


def _known() -> bool:
    """Whether this version of Flower has the private attributes of messages that ``reply`` and ``requests`` set."""
    ids = "run_id message_id src_node_id dst_node_id src_task_id dst_task_id reply_to_message_id group_id"
    facts = f"{ids} created_at delivered_at ttl message_type"
    metadata = Metadata(1, "", 1, 2, "", "", 0.0, 1.0, "train")
    empty = Message(RecordDict(), metadata=metadata)  # type: ignore[call-overload]
    same = vars(empty.metadata).keys() == {f"_{name}" for name in facts.split()}
    return bool(same and vars(empty).keys() == {"_metadata", "_content", "_error"})


_KNOWN = _known()


dtype_name = cache(str)
"""The name of a dtype, which NumPy makes anew each time."""


class Held(Array):
    """An Array that is serialised only when its bytes are read, which does not happen inside one process."""

    values: np.ndarray

    def __init__(self, values: np.ndarray) -> None:
        self.__dict__.update(dtype=dtype_name(values.dtype), shape=values.shape, stype="numpy.ndarray", values=values)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The serialised array, kept from the first time on."""
        serialised: bytes = self.__dict__.get("_data") or Array(self.values).data
        self.__dict__["_data"] = serialised
        return serialised

    def numpy(self) -> np.ndarray:
        """A copy of the array."""
        return np.array(self.values)

    def __reduce__(self) -> tuple[type[Array], tuple[np.ndarray]]:
        return Array, (self.values,)


Held.__qualname__ = Array.__qualname__  # another process deserialises it as an Array


def set_message_id(message: Message, message_id: str) -> None:
    """Set a message's id, which Flower leaves to the SuperLink."""
    message.metadata.__dict__["_message_id"] = message_id


def isolated(content: RecordDict) -> RecordDict:
    """The same records as new objects; they share the arrays' bytes, which cannot change.

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


def has_server_optimizer(strategy: Strategy) -> bool:
    """Whether a strategy is one of Flower's that take the clients' mean for a gradient, or derived from one.

    False for one inside a wrapper for differential privacy, which must see all that it releases.
    """
    optimizers = (strategies.FedAdagrad, strategies.FedAdam, strategies.FedAvgM, strategies.FedYogi, strategies.QFedAvg)
    return isinstance(innermost(strategy), optimizers) and not is_private(strategy)


def is_private(strategy: Strategy) -> bool:
    """Whether a strategy, or one of its wrappers, adds noise for differential privacy."""
    inner = getattr(strategy, "strategy", None)
    own = any(kind.__name__.startswith("DifferentialPrivacy") for kind in type(strategy).__mro__)
    return own or (isinstance(inner, Strategy) and is_private(inner))


def required_by_wrappers(strategy: Strategy) -> tuple[str, ...]:
    """The numbers without which Flower's wrappers around a strategy raise as they aggregate replies to training."""
    inner = getattr(strategy, "strategy", None)
    rest = required_by_wrappers(inner) if isinstance(inner, Strategy) else ()
    own = isinstance(strategy, strategies.DifferentialPrivacyClientSideAdaptiveClipping)
    return ((KEY_NORM_BIT,) if own else ()) + rest


def averages(strategy: Strategy, hook: str = "aggregate_train") -> bool:
    """Whether Flower's own code aggregates the replies: element by element, whatever their form."""
    return str(getattr(type(innermost(strategy)), hook).__module__).startswith("flwr.")


def averages_within(strategy: Strategy) -> bool:
    """Whether a strategy's own ``aggregate_train`` calls another class's, as one that also saves each model does."""
    code = getattr(type(innermost(strategy)).aggregate_train, "__code__", None)
    return code is None or bool({"aggregate_train", "aggregate_arrayrecords"} & set(code.co_names))


def weight_key(strategy: Strategy) -> str:
    """The metric by which a strategy weights replies."""
    return str(getattr(innermost(strategy), "weighted_by_key", "num-examples"))


def has_function(client_app: ClientApp, message_type: str) -> bool:
    """Whether a ClientApp has a function for messages of a type; True where that cannot be known."""
    functions = getattr(client_app, "_registered_funcs", {})
    if getattr(client_app, "_call", None) is not None or not functions:
        return True
    return (message_type if "." in message_type else f"{message_type}.default") in functions


def is_legacy(messages: Iterable[Message]) -> bool:
    """Whether messages are those of Flower's API before messages (``NumPyClient``, ``DefaultWorkflow``)."""
    first = next(iter(messages), None)
    return first is not None and any(name.startswith(("fitins.", "evaluateins.")) for name in first.content)


def without_secrets(content: RecordDict) -> tuple[RecordDict, bool]:
    """(a content without the records of SecAgg+, whether there are any): keys and ciphertexts, new in each run."""
    secret = [name for name in content if name.startswith("secaggplus")]
    return RecordDict({k: v for k, v in content.items() if k not in secret}) if secret else content, bool(secret)


@contextmanager
def keyed_hook(seed: int, hook: str, server_round: int) -> Iterator[None]:
    """Around a hook of a strategy: whatever it draws from global generators is keyed by (seed, hook, round)."""
    with rng.keyed_globals(rng.key(seed, hook, server_round)):
        yield


@contextmanager
def driven_by(start: Any) -> Iterator[None]:
    """While open, ``start`` replaces ``Strategy.start`` in every strategy that does not override it.

    Parameters
    ----------
    start : Callable
        ``(strategy, grid, initial_arrays, ...)``, with the parameters of Flower's ``Strategy.start``.
    """
    original = Strategy.start
    Strategy.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start = original  # type: ignore[method-assign]


@contextmanager
def keeping_identity() -> Iterator[None]:
    """Restore Flower's own identity of this process on exit; a SimulationGrid that is built meanwhile replaces it."""
    before = TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id
    try:
        yield
    finally:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = before
