"""What ``--vary`` says: the settings that differ between trials, and the values or the range of each."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_type_hints

from experiments.config.choices import PACKAGES
from experiments.config.flags import Options
from experiments.config.values import plain
from fl_sim.errors import ConfigError

Point = dict[str, object]
"""Dotted key -> value, for each setting that is varied."""
RANGE = re.compile(r"((?:log:|int:)*)\s*([-+.\deE]+?)\s*\.\.\s*([-+.\deE]+)")
"""``1e-3..1e-1``, ``log:1e-3..1e-1``, ``int:1..20``."""
OWN_FLAGS = {"seed": "give the seeds with --seed 0..4", "out": "the sweep decides it; give --out DIR"}
"""Settings that are not varied, and what to do instead."""


@dataclass(frozen=True)
class Axis:
    """One setting that is varied: by a list of values, or by a range, from which a search draws."""

    key: str
    values: tuple[object, ...] = ()
    """In the order in which they are tried; empty for a range."""
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    """Whether a search draws uniformly on a logarithmic scale."""
    whole: bool = False
    """Whether a search draws whole numbers."""

    @property
    def is_range(self) -> bool:
        """Whether only a search can vary it."""
        return not self.values


def axes_of(texts: Sequence[str]) -> list[Axis]:
    """The axes of ``--vary KEY=VALUES``, given once for each key. Raises ConfigError."""
    pairs = []
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            example = "'strategy.mu=0;0.01;0.1', or for a search 'local.lr=log:1e-3..1e-1'"
            raise ConfigError(f"vary = {text!r}: must be KEY=VALUE;VALUE, such as {example}")
        pairs.append((key.strip().removeprefix("--"), values))
    return checked([axis(key, values) for key, values in pairs])


def axes_from(vary: Mapping[str, object]) -> list[Axis]:
    """The axes of ``sweep({key: values})``: lists of values, or text as on the command line. Raises ConfigError."""
    if not isinstance(vary, Mapping):
        raise ConfigError(f"vary = {vary!r}: must be a dict from keys to lists of values")
    return checked([axis(key, values) for key, values in vary.items()])


def axis(key: str, given: object) -> Axis:
    """One axis: ``given`` is a list of values, or text: values with ``;`` between, or a range. Raises ConfigError."""
    key = key.replace("-", "_")
    key = key.removesuffix(".name") if key.removesuffix(".name") in PACKAGES else key
    if key in OWN_FLAGS or key in get_type_hints(Options):
        raise ConfigError(
            f"vary = {key!r}: is not varied; {OWN_FLAGS.get(key, 'it is an option of a call, no setting')}"
        )
    if not isinstance(given, str):
        values = plain(given.tolist() if hasattr(given, "tolist") else given)
        if not isinstance(values, list) or not values:
            raise ConfigError(f"vary = {{{key!r}: {given!r}}}: must be a list of values, or text such as '0;0.01;0.1'")
        return unique(Axis(key, tuple(values)))
    if found := RANGE.fullmatch(given.strip()):
        return ranged(key, given, found)
    values = [part.strip() for part in given.split(";")]
    if not all(values):
        raise ConfigError(f"vary = '{key}={given}': has an empty value; give values with ; between, as 0;0.01;0.1")
    return unique(Axis(key, tuple(values)))


def ranged(key: str, given: str, found: re.Match[str]) -> Axis:
    """The axis of a range. Raises ConfigError."""
    try:
        low, high = float(found[2]), float(found[3])
    except ValueError as error:
        raise ConfigError(f"vary = '{key}={given}': is no range of numbers, such as 1e-3..1e-1") from error
    log, whole = "log:" in found[1], "int:" in found[1]
    problem = ""
    if not low < high or math.isinf(low) or math.isinf(high):
        problem = "its ends must be two numbers, the smaller one first"
    elif log and low <= 0:
        problem = "a logarithmic range begins above 0"
    elif whole and (low != int(low) or high != int(high)):
        problem = "its ends must be whole numbers"
    if problem:
        raise ConfigError(f"vary = '{key}={given}': {problem}")
    return Axis(key, low=low, high=high, log=log, whole=whole)


def unique(one: Axis) -> Axis:
    """The axis. Raises ConfigError for a value that is named twice, which would count one trial as two."""
    if len({repr(value) for value in one.values}) < len(one.values):
        raise ConfigError(
            f"vary = {one.key}: names a value twice ({list(one.values)}), which would count one trial as two"
        )
    return one


def checked(axes: Sequence[Axis]) -> list[Axis]:
    """The axes. Raises ConfigError where there is none, or a key occurs twice."""
    if not axes:
        raise ConfigError(
            "vary: names no setting; give --vary 'KEY=VALUE;VALUE', such as --vary 'strategy.mu=0;0.01;0.1'"
        )
    for number, one in enumerate(axes):
        if one.key in [other.key for other in axes[:number]]:
            raise ConfigError(f"vary = {one.key!r}: is given twice; give all of its values at once")
    return list(axes)


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination of the values; the last axis varies fastest. Raises ConfigError for a range."""
    for one in axes:
        if one.is_range:
            why = f"{one.low:g}..{one.high:g} is a range, from which only a search draws"
            raise ConfigError(f"vary = {one.key!r}: {why}; give --trials N, or values with ; between")
    return [
        dict(zip((one.key for one in axes), values, strict=True))
        for values in itertools.product(*(one.values for one in axes))
    ]
