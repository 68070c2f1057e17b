"""Pools by name: ``make_pool("trimmed", share=0.2)``; the names are the files of ``strategies/pools``.

Underscores and dashes in a name are the same: ``geometric_median`` is ``geometric-median``."""

import inspect
from collections.abc import Mapping
from typing import Any

from fl_sim import registry
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

PACKAGE = "strategies.pools"
"""Where pools are found by name."""


def pool_class(name: str, key: str = "strategy.reduction") -> type[Pool]:
    """The pool called ``name``, or ``package.module:Class``.

    Raises ConfigError that names the setting ``key``, the name seen and the nearest valid one.
    """
    try:
        found: Any = registry.find(PACKAGE, "pool", name if ":" in name else name.replace("_", "-"))
    except ValueError as error:
        raise ConfigError(str(error).replace("pool.name = ", f"{key} = ", 1)) from error
    if not (inspect.isclass(found) and issubclass(found, Pool)):
        raise ConfigError(f"{key} = {name!r}: is no class derived from fl_sim.Pool")
    return found


def numbers_of(name: str, key: str = "strategy.reduction") -> tuple[str, ...]:
    """The names of a pool's own parameters (``p``, ``T``, ``share``, ``model``). Raises as ``pool_class``."""
    return tuple(inspect.signature(pool_class(name, key)).parameters)


def make_pool(
    name: str, numbers: Mapping[str, float], model: Tree | None = None, key: str = "strategy.reduction"
) -> Pool:
    """The pool called ``name`` with those of ``numbers`` that it has, and the global model where it takes ``model``.

    Raises ConfigError as ``pool_class`` does, and for a number out of range.
    """
    own = {"model": model, **numbers}
    taken = {k: own[k] for k in numbers_of(name, key) if k in own}
    try:
        return pool_class(name, key)(**taken)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key} = {name!r}: cannot be made: {error}") from error
