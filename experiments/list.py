"""``python -m experiments.list [--json]``: names of tasks, partitions, models, strategies, pools, attacks, recipes."""

import inspect
import sys
from json import dumps
from typing import Any

import tyro

from experiments.command_ends import ended
from experiments.config import recipe_files
from experiments.config.choices import PACKAGES, offered, parameters
from fl_sim import registry
from strategies.base.reductions import PACKAGE

PLURALS = {kind: f"{kind}s" for kind in PACKAGES} | {"strategy": "strategies"}
"""Heading of each kind of component."""


def listing() -> dict[str, list[dict[str, object]]]:
    """All components and recipes that can be chosen by name, by heading.

    Returns
    -------
    dict
        For each of ``PLURALS``, ``pools`` and ``recipes`` a list of dicts with ``name`` and ``help`` (one line); those
        of components also have ``parameters``, a dict of the defaults by name.
    """
    found: dict[str, list[dict[str, object]]] = {}
    for kind in PACKAGES:
        found[PLURALS[kind]] = [
            {
                "name": name,
                "help": (inspect.getdoc(component) or "").partition("\n")[0],
                "parameters": {key: p.default for key, p in parameters(kind, component).items()},
            }
            for name, component in offered(kind).items()
        ]
    pools = registry.names(PACKAGE, "pool")
    found["pools"] = [
        {"name": name, "help": (inspect.getdoc(pool) or "").partition("\n")[0]} for name, pool in pools.items()
    ]
    return {**found, "recipes": [{"name": name, "help": recipe_files.title(name)} for name in recipe_files.names()]}


def show(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The listing as text: a paragraph for each heading, and below each component its parameters as flags."""
    flags = {plural: f" (--{kind} NAME, or --{kind} package.module:Name)" for kind, plural in PLURALS.items()}
    flags["pools"] = " (--strategy pooled --strategy.reduction NAME, or package.module:Class)"
    lines = []
    for plural, components in rows.items():
        lines += ["", plural + flags.get(plural, " (python -m experiments.run NAME)")]
        kind = next((kind for kind in PLURALS if PLURALS[kind] == plural), "")
        for component in components:
            lines.append(f"  {component['name']:<18}{component['help']}")
            settings = "  ".join(f"--{kind}.{key} {value}" for key, value in component.get("parameters", {}).items())
            lines += [f"  {'':<18}{settings}"] if settings else []
    return "\n".join(lines[1:])


def main(json: bool = False) -> None:
    """Show the tasks, partitions, models, strategies, pools, attacks and recipes that can be chosen by name.

    Args:
        json: Print one JSON object instead of text.
    """
    rows = listing()
    print(dumps(rows, indent=2) if json else show(rows))


def command() -> int:
    """The command. Returns the exit code, 0."""
    tyro.cli(main, prog="python -m experiments.list", config=(tyro.conf.FlagCreatePairsOff,))
    return 0


if __name__ == "__main__":
    if code := ended(command):
        sys.exit(code)
