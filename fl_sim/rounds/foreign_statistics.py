"""Running statistics (BatchNorm's mean and variance) under strategies that are not this project's.

Such a strategy knows arrays and not what they are. Statistics are estimated and not trained: a server's optimiser that
takes them for weights drives variances below zero, and a norm over all arrays mixes counters with weights.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from fl_sim.logs.writer import RoundLog
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from fl_sim.wire.pool import PoolingStrategy

VARIANCE = "running_var"
"""How the names of PyTorch's running variances end."""


class ForeignStatistics:
    """Keeps the statistics of a run apart from a strategy's arithmetic.

    A strategy with an optimiser on the server (Flower's FedAdam, FedAdagrad, FedYogi, FedAvgM, QFedAvg and what is
    derived from them) gets the other arrays only; the statistics are the mean of its clients' own, with its weights.
    Other strategies (means, medians, Krum, ...) get all arrays. Of their result, counters become whole numbers again,
    and a statistic outside of all clients' values is replaced by the mean. A strategy for differential privacy keeps
    what it made, because the mean would reveal what its noise hides; variances below zero become zero, and buffers
    that no client has changed since the start keep their values, without noise.

    Parameters
    ----------
    names : Sequence of str
        The model's leaves that are statistics; none: nothing is done.
    strategy : Strategy
        The run's strategy, with its wrappers.
    event : Callable
        Records an event: ``event(kind, **facts)``. What was done is recorded once.
    """

    def __init__(self, names: Sequence[str], strategy: Strategy, event: Callable[..., None]) -> None:
        self.names, self.strategy, self.event = frozenset(names), strategy, event
        self.apart = bool(names) and flower.has_server_optimizer(strategy)
        self._weights: list[float] = []
        self._sent: dict[str, list[np.ndarray]] = {}
        self._told: set[str] = set()

    def trained(self, arrays: ArrayRecord) -> ArrayRecord:
        """The arrays that the strategy gets of a global model."""
        return _record({k: x for k, x in arrays.items() if k not in self.names}) if self.apart else arrays

    def complete(self, messages: Iterable[Message], arrays: ArrayRecord) -> None:
        """Put the whole model ``arrays`` into messages in which the strategy has put what it got of it."""
        if not self.apart:
            return
        got = set(arrays) - self.names
        for content in {id(message.content): message.content for message in messages}.values():
            for name, record in list(records.of(content, ArrayRecord).items())[:1]:
                if set(record) == got:
                    content[name] = arrays

    def take(self, replies: Sequence[Message]) -> None:
        """Keep the statistics of good replies; they are removed from these where the strategy must not see them."""
        if not self.names:
            return
        key = flower.weight_key(self.strategy)
        self._weights = [float(records.numbers(reply.content).get(key, 1.0)) for reply in replies]
        self._sent = {}
        for record in (record for reply in replies for record in records.of(reply.content, ArrayRecord).values()):
            for name in sorted(self.names & set(record)):
                self._sent.setdefault(name, []).append(record[name].numpy())
                if self.apart:
                    del record[name]
        self._sent = {k: values for k, values in self._sent.items() if len(values) == len(replies)}

    def settled(self, arrays: ArrayRecord, model: Tree) -> ArrayRecord:
        """The strategy's new arrays with the statistics that they must have, in the order and dtypes of ``model``."""
        if not self.names:
            return arrays
        own = dict(arrays.items())
        if self.apart:
            own |= {k: self._mean(k, model) for k in self._sent}
            who = type(flower.innermost(self.strategy)).__name__
            self._tell(f"{who} does not get these arrays; the mean of the clients' own is used", sorted(self._sent))
        else:
            told: dict[str, list[str]] = {}
            common = sorted(self.names & set(own) & set(self._sent))
            given = {k: self._checked(k, own[k].numpy(), model, told) for k in common}
            for what, names in told.items():
                self._tell(what, names)
            if all(x is None for x in given.values()):
                return arrays
            own |= {k: x for k, x in given.items() if x is not None}
        return _record({k: own[k] for k in (*(k for k in model if k in own), *(k for k in own if k not in model))})

    def report_unanswered(self) -> None:
        """Record once the statistics that no client sends, as where replies are gradients only (MAML)."""
        unanswered = getattr(flower.innermost(self.strategy), "unanswered", ())
        if unanswered:
            self._tell("the replies do not contain these arrays, so that they stay as they are", unanswered)

    def restored(self, order: Sequence[str], log: RoundLog | None) -> None:
        """After a checkpoint was read: record nothing that ``log`` says already, and mend what older code kept.

        Older code gave all arrays to every strategy; what a strategy kept of statistics is removed. ``order`` are the
        names of the model's leaves, in which order a list of arrays holds one for each.
        """
        lines = [] if log is None else (log.path / "events.jsonl").read_bytes().splitlines()
        events = [json.loads(line) for line in lines if b'"running_statistics"' in line]
        self._told |= {str(event["reason"]) for event in events if event["event"] == "running_statistics"}
        kept = vars(flower.innermost(self.strategy)) if self.apart else {}
        for attribute, value in kept.items():
            if isinstance(value, dict | ArrayRecord):
                for name in self.names & set(value):
                    del value[name]
            elif isinstance(value, list) and len(value) == len(order):
                kept[attribute] = [x for name, x in zip(order, value, strict=True) if name not in self.names]

    def _mean(self, name: str, model: Mapping[str, Any]) -> Array:
        """The weighted mean of the clients' statistic, with the arithmetic of Flower's FedAvg."""
        total = sum(self._weights)
        mean = sum(x * (weight / total) for x, weight in zip(self._sent[name], self._weights, strict=True))
        return _as_dtype(np.asarray(mean), model[name])

    def _checked(self, name: str, value: np.ndarray, model: Tree, told: dict[str, list[str]]) -> Array | None:
        """What replaces a strategy's own ``value`` of a statistic; None where it stays as it is.

        ``told`` gets the name under what was done.
        """
        sent = np.stack(self._sent[name]).astype(np.float64)
        low, high = sent.min(0), sent.max(0)
        room = 1e-5 * np.maximum(np.abs(low), np.abs(high)) + 1e-12
        if not ((value >= low - room) & (value <= high + room)).all():  # NaN is outside
            if not flower.is_private(self.strategy):
                told.setdefault("outside of all clients' values; the mean of the clients' own is used", []).append(name)
                return self._mean(name, model)
            first = model[name].cpu().numpy()
            if (sent == first).all():  # a constant of the network, such as a mask, which is no secret
                return _as_dtype(first, model[name])
            what = "changed by a strategy for differential privacy; only variances below 0 are set to 0"
            told.setdefault(what, []).append(name)
            value = np.maximum(value, 0) if name.endswith(VARIANCE) else value
            return _as_dtype(value, model[name])
        return None if model[name].is_floating_point() else _as_dtype(value, model[name])

    def _tell(self, what: str, names: Sequence[str]) -> None:
        """Record once what was done."""
        if what not in self._told:
            self._told.add(what)
            self.event("running_statistics", reason=what, names=list(names))


def statistics_under(strategy: Strategy, names: Sequence[str], event: Callable[..., None]) -> ForeignStatistics:
    """What keeps the statistics ``names`` apart from a strategy; one of this project's is told them, and does so."""
    inner = flower.innermost(strategy)
    if isinstance(inner, PoolingStrategy):
        inner.statistics = names
    return ForeignStatistics(() if isinstance(strategy, PoolingStrategy) else names, strategy, event)


def _record(arrays: Mapping[str, Array]) -> ArrayRecord:
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def _as_dtype(value: np.ndarray, like: Any) -> Array:
    """``value`` as an array; where ``like`` is a tensor of integers, rounded to whole numbers of its dtype."""
    if like.is_floating_point():
        return flower.Held(np.asarray(value))
    return flower.Held(np.asarray(np.round(value), str(like.dtype).removeprefix("torch.")))
