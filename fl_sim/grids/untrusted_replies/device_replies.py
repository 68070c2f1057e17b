"""Replies of real devices: the fields that only they send, and on which a grid acts itself."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fl_sim.blocks.learner import Settings
from fl_sim.grids.untrusted_replies.claims import MOST_STEPS, finite, is_number, shortened, weight_problem, whole
from fl_sim.grids.untrusted_replies.exchange_replies import POOL
from fl_sim.tree import Tree
from fl_sim.wire import array_bytes, codec, payload
from fl_sim.wire.set_records import SETS

MOST_NUMBERS = 10_000
"""The most numbers that a device reports."""
MOST_BYTES = 10**15
"""The largest size of a model that is believed."""
KNOWN_FACTS = {"python", "machine", "flwr", "torch", "numpy"}
"""What a device says about its software, besides its numbers."""


def introduction(reply: Message, num_clients: int, max_examples: float) -> tuple[int, dict[str, Any], str]:
    """(the client that a node says it is, its facts, why the answer to a query must not be used or "")."""
    record = reply.content.get("node") if reply.has_content() else None
    if not isinstance(record, ConfigRecord):
        return -1, {}, "it does not say who it is"
    why = whole(record, "partition-id", num_clients - 1)
    for key in () if why else ("examples", "held-out"):
        why = why or (f"it does not say its {key}" if key not in record else whole(record, key, max_examples))
    if why:
        return -1, {}, why
    numbers = {
        key: int(record[key])  # type: ignore[arg-type]
        for key in ("partition-id", "examples", "held-out")
    }
    said = {k: v[:200] for k, v in record.items() if k in KNOWN_FACTS and isinstance(v, str)}
    return numbers["partition-id"], {**said, **numbers}, ""


def from_device(
    content: RecordDict, settings: Settings, said: Mapping[str, Any], trains: bool, max_examples: float
) -> tuple[RecordDict, str]:
    """(a device's reply with facts that the server has checked or measured, why it must not be used or "").

    Parameters
    ----------
    content : RecordDict
        At most one ArrayRecord besides those of the payload and of a codec, one MetricRecord of single numbers, and the
        ConfigRecords ``facts`` and ``set_metrics``.
    settings : Settings
        Those of the message that it answers: the round, and ``weighting``.
    said : Mapping
        What the device said of itself (``introduction``): ``examples`` and ``held-out``.
    trains : bool
        Whether it answers a message for training.
    max_examples : float
        The largest number of samples that is believed.
    """
    arrays = {k: v for k, v in content.items() if isinstance(v, ArrayRecord)}
    metrics = [v for v in content.values() if isinstance(v, MetricRecord)]
    configs = {k: v for k, v in content.items() if isinstance(v, ConfigRecord)}
    facts = dict(configs.get("facts", {}))
    counts = f"{len(arrays)} records of arrays and {len(metrics)} of metrics"
    models = [k for k in arrays if not k.startswith(payload.RECORD) and k != codec.RECORD]
    if len(models) > 1 or len(metrics) != 1 or POOL in arrays:
        return content, f"{counts} ({shortened(sorted(content))}); a device sends at most one of its model, and one"
    if unknown := sorted(set(configs) - {"facts", SETS}):
        return content, f"unknown records {shortened(unknown)}"
    try:
        size = sum(x.nbytes for record in arrays.values() for x in array_bytes.values_of(record).values())
    except ValueError as error:
        return content, str(error)
    why = _device_numbers_problem(metrics[0], said, max_examples) or _facts_problem(facts, settings, said, trains)
    own: dict[str, Any] = {k: facts[k] for k in ("weight", "state-round") if k in facts}
    checked: dict[str, Any] = {k: v for k, v in content.items() if k != "facts"}
    return RecordDict({**checked, "facts": ConfigRecord({**own, "num-bytes": size})}) if not why else content, why


def _device_numbers_problem(numbers: Mapping[str, Any], said: Mapping[str, Any], most: float) -> str:
    """Why a device's metrics must not be used, or ""."""
    if len(numbers) > MOST_NUMBERS or any(len(name) > 200 for name in numbers):
        return f"{len(numbers)} metrics, or one with a name of more than 200 characters"
    for name, value in numbers.items():
        if not is_number(value):
            return f"{name} is a list of {len(value)} numbers; a device reports single numbers"
    why = "" if finite(numbers.get("num-examples", 0)) else f"num-examples is {numbers['num-examples']}"
    why = why or whole(numbers, "num-examples", most) or whole(numbers, "steps", MOST_STEPS)
    if why:
        return why
    limits = {"num-examples": said["examples"], "held_out": max(said["examples"], said["held-out"])}
    for name, limit in limits.items():
        if name in numbers and not 0 <= numbers[name] <= limit:
            return f"{name} = {numbers[name]}: the device said that it has {limit} when it was asked who it is"
    return ""


def _facts_problem(facts: Mapping[str, Any], settings: Settings, said: Mapping[str, Any], trains: bool) -> str:
    """Why a device's facts must not be used, or ""."""
    limit = 1 if settings.get("weighting") == "uniform" else said["examples"]
    if "weight" in facts:
        if why := weight_problem(facts, "weight", inf):
            return why
        if trains and facts["weight"] > limit:
            return f"weight = {facts['weight']}: at most {limit}, as the device said when it was asked who it is"
    if "num-bytes" in facts and (why := whole(facts, "num-bytes", MOST_BYTES)):  # the server measures it itself
        return why
    if "state-round" in facts and facts["state-round"] != settings.get("server-round", 0):
        asked = settings.get("server-round", 0)
        return f"state-round = {shortened(facts['state-round'])}: the message was of round {asked}"
    return ""


def model_problems(replies: Sequence[Message], form: Tree, required: Collection[str]) -> list[str]:
    """Of each device's reply, why its model or update cannot be pooled with those of the others, or "".

    A reply has one ArrayRecord, those of its payload, and a weight. The names of its arrays are those of most replies,
    and of the larger set where two are as frequent; they are names of ``form``, the ``required`` ones among them.
    Shapes and dtypes are those of ``form``.
    """
    found = []
    for reply in replies:
        parts = [payload.named(n, array_bytes.values_of(r)) for n, r in payload.records_of(reply.content).items()]
        found.append({k: x for part in parts for k, x in part.items()})
    names = Counter(frozenset(x) for x in found if set(required) <= set(x) <= set(form))
    common = max(names, key=lambda x: (names[x], len(x)), default=frozenset(form))
    like = {k: form[k] for k in form if k in common}
    problems = []
    for reply, values in zip(replies, found, strict=True):
        weight = "weight" in reply.content.config_records["facts"]
        lacks = "" if (values or not form) and weight else "a reply without a model, or without its weight"
        other = array_bytes.form_problem(values, like, free_bytes=False)
        problems.append(lacks or other or array_bytes.size_problem(values, True))
    return problems
