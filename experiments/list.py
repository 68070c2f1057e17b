"""``python -m experiments.list [KIND ...] [--json]``: what can be chosen by name, with a line about each.

It is read from the source files (``experiments.config.offered``): no component is imported.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from textwrap import wrap
from typing import Any

from experiments.command_ends import Arguments, ended
from experiments.config import recipe_files
from experiments.config.choices import COMMON, PACKAGES, offered, parameters
from experiments.config.offered.outlines import outlined
from fl_sim import registry

PLURALS = {kind: f"{kind}s" for kind in PACKAGES} | {"strategy": "strategies"}
"""Heading of each kind of component."""
HEADINGS = (*PLURALS.values(), "pools", "recipes")
"""All headings."""
ONE = PLURALS | {"pool": "pools", "recipe": "recipes"}
"""The heading by the name of one."""
WIDTH, INDENT = 100, 25
"""Columns of the text, and those that names take."""


def listing() -> dict[str, list[dict[str, object]]]:
    """All components and recipes that can be chosen by name, by heading.

    Returns
    -------
    dict
        For each of ``HEADINGS`` a list of dicts with ``name`` and ``help`` (one line); those of components also have
        ``parameters``, a dict of the defaults by name.
    """
    found: dict[str, list[dict[str, object]]] = {}
    with outlined():
        for kind in PACKAGES:
            found[PLURALS[kind]] = [
                {
                    "name": name,
                    "help": first_line(component),
                    "parameters": {key: p.default for key, p in parameters(kind, component).items()},
                }
                for name, component in offered(kind).items()
            ]
        pools = registry.names("strategies.pools", "pool")
        found["pools"] = [{"name": name, "help": first_line(pool)} for name, pool in pools.items()]
    return {**found, "recipes": [{"name": name, "help": recipe_files.title(name)} for name in recipe_files.names()]}


def first_line(component: object) -> str:
    """The first line of a component's docstring."""
    return (inspect.getdoc(component) or "").partition("\n")[0]


def show(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The listing as text of at most 100 columns: a paragraph a heading, and below each component its own settings."""
    usage = {plural: f"--{kind} NAME, or --{kind} package.module:Name" for kind, plural in PLURALS.items()}
    usage["pools"] = "--strategy pooled --strategy.reduction NAME, or package.module:Class"
    lines = []
    for plural, components in rows.items():
        lines += ["", f"{plural} ({usage.get(plural, 'python -m experiments.run NAME')})"]
        kind = next((kind for kind in PLURALS if PLURALS[kind] == plural), "")
        common = COMMON.get(kind, {})
        if common:
            each = settings(kind, {key: p.default for key, p in common.items()})
            lines += wrapped(f"each of them takes {each}", "  ", 4)
        for component in components:
            name, own = component["name"], component.get("parameters", {})
            name = f"  {name:<{INDENT - 2}}" if len(name) < INDENT - 2 else f"  {name}  "
            lines += wrapped(component["help"], name, INDENT)
            own = settings(kind, {key: value for key, value in own.items() if key not in common})
            lines += wrapped(own, " " * INDENT, INDENT)
    return "\n".join(lines[1:])


def settings(kind: str, defaults: Mapping[str, object]) -> str:
    """Settings and their defaults as flags; a flag and its value stay on one line."""
    flags = (
        f"--{kind}.{key}\0{value!r}" if value == "" else f"--{kind}.{key}\0{value}" for key, value in defaults.items()
    )
    return " ".join(flags)


def wrapped(text: str, first: str, indent: int) -> Iterable[str]:
    """The lines of a text that is too long for one; none of an empty text."""
    lines = wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False)
    return [line.replace("\0", " ").replace("``", "`") for line in lines]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0, or 2 for bad input."""
    parser = Arguments(
        prog="python -m experiments.list",
        description="Show what can be chosen by name, with a line about each and the defaults of its own settings.",
        epilog="What a setting means: python -m experiments.run --strategy NAME --help (and so on).",
        allow_abbrev=False,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"show these alone: {', '.join(HEADINGS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    for kind in (kinds := [ONE.get(kind, kind) for kind in options.kinds]):
        if kind not in HEADINGS:
            near = registry.nearest(kind, list(HEADINGS))
            print(f"error: {kind!r}: unknown{near}; choose of {', '.join(HEADINGS)}", file=sys.stderr)
            return 2
    rows = {heading: found for heading, found in listing().items() if heading in (kinds or HEADINGS)}
    print(dumps(rows, indent=2) if options.json else show(rows))
    return 0


if __name__ == "__main__":
    if code := ended(main):
        sys.exit(code)
