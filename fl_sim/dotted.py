"""Nested settings to dotted names: ``{"strategy": {"mu": 1}}`` becomes ``{"strategy.mu": 1}``.

Settings are nested inside the program; flags, messages and tables of results use dotted names.
"""

from collections.abc import Mapping
from typing import Any


def flatten(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested tables as one, by dotted names, at any depth; ``prefix`` comes before each name.

    >>> flatten({"strategy": {"name": "fedprox", "mu": 1}, "rounds": 5})
    {'strategy.name': 'fedprox', 'strategy.mu': 1, 'rounds': 5}
    """
    flat: dict[str, object] = {}
    for name, value in nested.items():
        key = f"{prefix}{name}"
        if not isinstance(value, (int, float, str)) and isinstance(value, Mapping):  # most are numbers or text
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def table(flat: Mapping[str, object], name: str) -> dict[str, Any]:
    """The entries of ``flat`` below ``name``, by the rest of their names.

    >>> table({"strategy": "fedprox", "strategy.mu": 1, "rounds": 5}, "strategy")
    {'mu': 1}
    """
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
