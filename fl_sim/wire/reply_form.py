"""The expected form of a reply's arrays: names, shapes and dtypes.

Replies to a strategy of this project look like its model. A foreign strategy may send anything, so its clients' replies
are compared with the arrays in their own messages, and with each other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from fl_sim.tree import Tree
from fl_sim.wire import payload, records

Likes = Callable[[Message, Message], Mapping[str, Tree]]
"""``(message, reply) -> record name -> a tree of the expected form``; a record without an entry may have any form."""


def anything(message: Message, reply: Message) -> Mapping[str, Tree]:
    """Arrays of any form."""
    return {}


def as_model(model: Tree, trees: Mapping[str, Tree]) -> Likes:
    """A reply's payload looks like ``trees``, by name; every other ArrayRecord looks like ``model``."""
    beside = {payload.RECORD + name: tree for name, tree in trees.items()}
    return lambda message, reply: {name: beside.get(name, model) for name in records.of(reply.content, ArrayRecord)}


def as_sent(types: Mapping[str, str]) -> Likes:
    """Each ArrayRecord of a reply has the form of the one with its name in the message.

    Where message and reply have one each, names do not matter. ``types``: by the array's name, a dtype that is accepted
    besides the one sent.
    """
    kept: dict[int, tuple[ArrayRecord, Tree]] = {}

    def look(record: ArrayRecord, like: ArrayRecord) -> Tree:
        if id(like) not in kept:
            kept[id(like)] = like, {k: _header(array.shape, array.dtype) for k, array in like.items()}
        sent = kept[id(like)][1]
        other = {k: types[k] for k in sent if k in types and k in record and record[k].dtype == types[k]}
        return {**sent, **{k: _header(tuple(sent[k].shape), dtype) for k, dtype in other.items()}}

    def likes(message: Message, reply: Message) -> dict[str, Tree]:
        sent, got = message.content.array_records, reply.content.array_records
        only = next(iter(sent.values())) if len(sent) == len(got) == 1 else None
        pairs = [(name, record, sent.get(name, only)) for name, record in got.items()]
        return {name: look(record, like) for name, record, like in pairs if like is not None}

    return likes


def expected(
    messages: Sequence[Message], replies: Sequence[Message], initial: Mapping[str, torch.Tensor], averages: bool
) -> Likes:
    """The form of the replies to a foreign strategy's messages: that of the arrays in these messages.

    The dtypes of ``initial`` (the run's first model) are accepted too, because Flower's strategies turn integers and
    float32 into float64 as they average. Where no reply has the expected form, the app has a protocol of its own: a
    strategy with its own aggregation then gets replies of any form; one that ``averages`` gets other dtypes, if most
    replies agree on them.
    """
    by_id = {message.metadata.message_id: message for message in messages}
    answered = [r for r in replies if r.has_content() and r.metadata.reply_to_message_id in by_id]
    pairs = [(by_id[r.metadata.reply_to_message_id], r) for r in answered]
    likes = as_sent({k: str(v.dtype).removeprefix("torch.") for k, v in initial.items()})
    if not pairs or any(_fits(message, reply, likes) for message, reply in pairs):
        return likes
    if not averages:
        return anything
    types = Counter(
        tuple((k, x.dtype) for record in r.content.array_records.values() for k, x in sorted(record.items()))
        for r in answered
    )
    [(common, count)] = types.most_common(1)
    return as_sent(dict(common)) if 2 * count > len(pairs) else likes


def _header(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """A tensor without memory; types that torch does not know count as bytes, whose form is free."""
    return torch.empty(shape, dtype=getattr(torch, dtype, torch.uint8), device="meta")


def _fits(message: Message, reply: Message, likes: Likes) -> bool:
    """Whether a reply's arrays have the form expected."""
    for name, like in likes(message, reply).items():
        record = reply.content.array_records[name]
        if set(record) != set(like):
            return False
        for key, x in like.items():
            found = tuple(record[key].shape), f"torch.{record[key].dtype}"
            if x.dtype != torch.uint8 and found != (tuple(x.shape), str(x.dtype)):
                return False
    return True


@dataclass(frozen=True)
class NumbersForm:
    """What Flower's averages demand of a round's replies, or else raise: the same names of records and numbers.

    Each reply has one MetricRecord, and where ``lists`` is set, its lists have the lengths of the others'.
    """

    common: tuple[object, ...]
    arrays: bool
    lists: bool

    @classmethod
    def of(cls, replies: Sequence[Message], key: str, arrays: bool, lists: bool) -> "NumbersForm":
        """The form of most replies; of those that have the weight ``key``, if there are any.

        ``arrays`` : whether the record of arrays must have one name. ``lists`` : whether lists are averaged.
        """
        forms = [_numbers_of(reply, arrays, lists) for reply in replies]
        weighted = [form for form in forms if any(part[0] == key for part in form[2])]
        [(common, _)] = Counter(weighted or forms).most_common(1) or [(("", "", ()), 0)]
        return cls(common, arrays, lists)

    def problem(self, reply: Message) -> str:
        """How a reply differs from the common form, or ""."""
        if len(reply.content.metric_records) != 1:
            return f"{len(reply.content.metric_records)} records of metrics; a reply must have one"
        found = _numbers_of(reply, self.arrays, self.lists)
        if found == self.common:
            return ""
        return f"other names of records or numbers than most replies: {found}, must be {self.common}"[:600]


def _numbers_of(reply: Message, arrays: bool, lists: bool) -> tuple[str, str, tuple[tuple[str, int], ...]]:
    """(name of the record of arrays, that of metrics, names of numbers with -1, or the length of a list)."""
    metrics: tuple[str, MetricRecord] = next(iter(reply.content.metric_records.items()), ("", MetricRecord()))
    name = next(iter(reply.content.array_records), "") if arrays else ""
    numbers = ((k, len(v) if isinstance(v, list) and lists else -1) for k, v in metrics[1].items())
    return name, metrics[0], tuple(sorted(numbers))
