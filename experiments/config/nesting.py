"""Settings as nested dicts: the one form in which they travel from recipes and flags to configs."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config.choices import PACKAGES
from experiments.config.tables import SECTIONS
from experiments.config.values import plain
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError

Settings = dict[str, Any]
"""Explicit settings only: ``{"rounds": 5, "local": {"lr": 0.1}, "strategy": {"name": "fedprox", "mu": 0.1}}``."""


def nested(settings: Mapping[str, Any]) -> Settings:
    """Settings with dotted keys and plain names of components as nested dicts.

    ``{"model": "x", "local.lr": 1}`` becomes ``{"model": {"name": "x"}, "local": {"lr": 1}}``. Values are converted by
    ``plain``. Raises ConfigError where a table such as ``local`` has a value that is no table, and for a setting that
    is given twice, in a table and by its dotted name.
    """
    result: Settings = {}
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        try:
            value = plain(value)
        except RecursionError:
            raise ConfigError(f"{key}: its value is nested too deeply, or contains itself") from None
        if rest:
            value = {rest: value}
        elif head in PACKAGES and not isinstance(value, Mapping):
            value = {"name": value}
        if head in SECTIONS and not isinstance(value, Mapping):
            raise ConfigError(f"{head} = {value!r}: must be a table with keys of its own")
        if head not in (*PACKAGES, *SECTIONS):
            result[head] = value
            continue
        if head == "strategy":  # {"maml": {"order": 2}} is a parameter for one of several strategies
            value = flatten(value)
        table = result.setdefault(head, {})
        for name, part in value.items():
            if name in table:
                raise ConfigError(f"{head}.{name} = {part!r}: is given twice (first {table[name]!r}); give it once")
        table.update(value)
    return result


def without(settings: Settings, dotted: Sequence[str]) -> Settings:
    """Nested settings without the keys in ``dotted`` and without values that are None.

    TOML has no None; a setting that may be None has it as its default.
    """
    kept: Settings = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            kept[key] = {
                name: part for name, part in value.items() if f"{key}.{name}" not in dotted and part is not None
            }
        elif key not in dotted and value is not None:
            kept[key] = value
    return kept
