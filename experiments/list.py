"""``python -m experiments.list [--json]``: the tasks, partitions, models, strategies and recipes that there are."""

import inspect
from json import dumps
from typing import Any

import tyro

from experiments.config import recipe_files
from experiments.config.choices import PACKAGES, offered, parameters

PLURALS = {"task": "tasks", "partition": "partitions", "model": "models", "strategy": "strategies"}


def listing() -> dict[str, list[dict[str, Any]]]:
    """Rows by plural noun: ``name``, ``help`` (one line), and of things their ``parameters`` with defaults."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in PACKAGES:
        found[PLURALS[kind]] = [
            {
                "name": name,
                "help": (inspect.getdoc(thing) or "").partition("\n")[0],
                "parameters": {key: p.default for key, p in parameters(kind, thing).items()},
            }
            for name, thing in offered(kind).items()
        ]
    return {**found, "recipes": [{"name": name, "help": recipe_files.title(name)} for name in recipe_files.names()]}


def show(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The listing as text: a paragraph a noun, under each thing its parameters as flags."""
    flags = {plural: f" (--{kind} NAME, or --{kind} package.module:Name)" for kind, plural in PLURALS.items()}
    lines = []
    for plural, things in rows.items():
        lines += ["", plural + flags.get(plural, " (python -m experiments.run NAME)")]
        kind = next((kind for kind in PLURALS if PLURALS[kind] == plural), "")
        for thing in things:
            lines.append(f"  {thing['name']:<18}{thing['help']}")
            settings = "  ".join(f"--{kind}.{key} {value}" for key, value in thing.get("parameters", {}).items())
            lines += [f"  {'':<18}{settings}"] if settings else []
    return "\n".join(lines[1:])


def main(json: bool = False) -> None:
    """Show the tasks, partitions, models, strategies and recipes that there are.

    Args:
        json: As one JSON object, instead of text.
    """
    rows = listing()
    print(dumps(rows, indent=2) if json else show(rows))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.list", config=(tyro.conf.FlagCreatePairsOff,))
