"""A strategy's attributes as JSON and tensors, so that reading a checkpoint calls no code that its file names.

Numbers, text, containers, tensors, NumPy's arrays and Flower's records are written as they are. Functions and classes
are not written: a restored strategy keeps those that its constructor made, and only their names are compared. An
attribute of any other type is *odd*; ``fl_sim.rounds.checkpoint_files.pickled_part`` holds it.

In the JSON, null, booleans, numbers and text stand for themselves; everything else is a list that begins with its kind.
An object that occurs twice is written once, so that a restored strategy shares it as before.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fl_sim.errors import ConfigError
from fl_sim.wire.pool import PoolingStrategy

RECORDS: dict[str, Any] = {c.__name__: c for c in (ArrayRecord, MetricRecord, ConfigRecord, RecordDict)}
"""Flower's records by name."""
SEQUENCES: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
"""Containers of values by name, besides lists."""
PLAIN_KINDS = "biufcSUmM"
"""NumPy's kinds of dtypes whose bytes are the values; object arrays and structured ones are odd."""
MADE_BY_CONSTRUCTOR = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
"""Types of attributes that are not written where they are those of the constructor."""


class AsBuilt:
    """Stands for a function, a class or a module that the restored strategy's constructor makes."""

    def __init__(self, name: str) -> None:
        self.name = name


class Inner:
    """Stands for a strategy inside a strategy (a wrapper's), and holds its attributes."""

    def __init__(self, name: str, attributes: dict[str, object]) -> None:
        self.name, self.attributes = name, attributes


class Built:
    """What a strategy's constructor made, seen before the first round: its attributes, and those of strategies inside.

    An attribute that is no longer the same object was changed by the run.
    """

    def __init__(self, strategy: object) -> None:
        self.attributes = dict(vars(strategy))
        self.inside = {k: Built(v) for k, v in self.attributes.items() if isinstance(v, Strategy)}


def kept_of(strategy: object) -> Mapping[str, Any]:
    """The attributes that a checkpoint keeps of a strategy, by name (``__getstate__``)."""
    kept: Any = strategy.__getstate__() or {}
    found: Mapping[str, Any] = kept if isinstance(kept, Mapping) else kept[0] or {}  # a class with slots returns a pair
    return found


def restore(strategy: Any, attributes: Mapping[str, object]) -> None:
    """Give a strategy, fresh from its constructor, the attributes that a checkpoint kept.

    Raises ConfigError where it is built otherwise than the one whose attributes these are.
    """
    own, taken = vars(strategy), {}
    for name, value in attributes.items():
        if isinstance(value, (AsBuilt, Inner)):
            known = name_of(own[name] if isinstance(value, AsBuilt) else type(own[name])) if name in own else "missing"
            if known != value.name:
                is_now = f"it is {known} in the strategy that goes on, and was {value.name} when the checkpoint"
                raise ConfigError(f"strategy.{name}: {is_now} was written; give the strategy that the run began with")
            if isinstance(value, Inner):
                restore(own[name], value.attributes)
        else:
            taken[name] = value
    if isinstance(strategy, PoolingStrategy):
        strategy.restore(taken)
    else:
        own.update(taken)


def name_of(value: Any) -> str:
    """A function, a class or a module as ``module:name``."""
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
