"""Several strategies in one call: their names, and parameters for one of them (``strategy.NAME.PARAMETER``).

``strategy.mu`` reaches each strategy of the call that has a parameter ``mu``, ``strategy.fedprox.mu`` fedprox alone.
"""

from collections.abc import Mapping
from typing import Any

from fl_sim.errors import ConfigError
from fl_sim.registry import nearest

Table = Mapping[str, Any]
"""The settings of one kind of component by the part of their dotted names after the kind: ``{"maml.order": 2}``."""


def names_in(kind: str, name: Any) -> list[Any]:
    """Each name (or object) in the value of ``kind.name``; only of strategies there may be several."""
    if kind != "strategy":
        return [name]
    several = name if isinstance(name, list) else [name]
    if isinstance(name, str):
        several = [part.strip() for part in name.split(",")]
    if not several:
        raise ConfigError(f"{kind}.name = {name!r}: names nothing; give one name or several")
    return several


def is_of_one(key: str) -> bool:
    """Whether a dotted key is a parameter for one of several strategies."""
    return key.startswith("strategy.") and "." in key.removeprefix("strategy.")


def general(key: str) -> str:
    """The dotted key without the name of a strategy: ``strategy.order`` for ``strategy.maml.order``."""
    return f"strategy.{key.rpartition('.')[2]}" if is_of_one(key) else key


def owner_of(key: str, value: Any, names: list[str]) -> str:
    """The strategy that ``NAME.PARAMETER`` is for. Raises ConfigError where the call has no such strategy."""
    wanted = key.rpartition(".")[0]
    for name in names:
        if name.replace("-", "_") == wanted.replace("-", "_"):
            return name
    there = f"this call has {', '.join(names)}{nearest(wanted, names)}"
    raise ConfigError(f"strategy.{key} = {value!r}: {wanted} is no strategy of this call; {there}")


def given_to_each(kind: str, table: Table, takes: Mapping[str, Table]) -> dict[str, dict[str, Any]]:
    """The parameters that ``table`` gives to each component.

    Parameters
    ----------
    kind : str
        "strategy", "task", "partition" or "model".
    table : Mapping
        The settings of the kind; ``name`` is ignored.
    takes : Mapping
        The settable parameters of each component, by its name.

    Raises
    ------
    ConfigError
        For a parameter that no component takes, and one for a component that is not there.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in takes}
    settings = {key: value for key, value in table.items() if key != "name"}
    for key, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # those for one component last
        one = kind == "strategy" and "." in key
        first, _, rest = key.partition(".")
        if one and first not in takes and any(first in own for own in takes.values()):
            raise ConfigError(f"{kind}.{first} = { {rest: value} }: is one value, not a table; leave .{rest} out")
        reached = [owner_of(key, value, list(takes))] if one else list(takes)
        parameter = key.rpartition(".")[2] if one else key
        takers = [name for name in reached if parameter in takes[name]]
        if not takers:
            known = list(dict.fromkeys(k for name in reached for k in takes[name]))
            which = f"{kind} {' and '.join(reached)} takes no such parameter{nearest(parameter, known)}"
            raise ConfigError(f"{kind}.{key} = {value!r}: {which}; it takes {', '.join(known) or 'none'}")
        for name in takers:
            given[name][parameter] = value
    return given


def check_reached(table: Table, takes: Mapping[str, Table]) -> None:
    """Raise ConfigError for a parameter of all strategies where each that takes it has a value of its own."""
    for key, value in table.items():
        takers = [name for name, own in takes.items() if key in own]
        if takers and all(f"{name}.{key}" in table for name in takers):
            cure = f"{' and '.join(takers)} has a value of its own; leave one of them out"
            raise ConfigError(f"strategy.{key} = {value!r}: {cure}")


def kept_of(recipe: Table, over: Table, takes: Mapping[str, Table]) -> dict[str, Any]:
    """What stays of a recipe's table of strategies under that of the flags, which replaces all that it sets."""
    kept = {}
    for key, value in recipe.items():
        name, _, parameter = key.rpartition(".")
        takers = [other for other, own in takes.items() if parameter in own]
        if name and (name not in takes or parameter in over):
            continue
        if not name and takers and all(f"{other}.{key}" in over for other in takers):
            continue
        kept[key] = value
    return kept
