"""The names of strategies in messages, configs and run folders."""

import inspect
from functools import cache

PACKAGE = "strategies"
"""A strategy in this package is named by the last part of its module in messages, configs and run folders.

Old runs contain these names, so that they must not change.
"""


def name_of(cls: type) -> str:
    """The name by which a client finds its half of a strategy.

    The last part of the module for strategies of this project; ``package.module:Class`` for a user's own.
    """
    package, _, module = cls.__module__.rpartition(".")
    return module.replace("_", "-") if package == PACKAGE else f"{cls.__module__}:{cls.__qualname__}"


@cache
def parameters_of(cls: type) -> tuple[str, ...]:
    """The names of a constructor's parameters."""
    return tuple(inspect.signature(cls).parameters)
