"""The command line of ``python -m experiments.bench``: few flags; an error names the flag, its value and the remedy."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from experiments.bench.workloads.catalogue import GROUPS, SYSTEMS, WORKS, Work, quick
from fl_sim import registry


class BadFlag(ValueError):
    """A flag has an invalid value; the text names the flag, the value and the remedy."""


@dataclass(frozen=True)
class Options:
    """The validated flags."""

    works: tuple[tuple[Work, tuple[str, ...]], ...]
    """Each workload with the names of the systems that run it."""
    out: Path
    """Folder for the results."""
    json: bool
    """Whether the results are also printed as JSON."""
    quick: bool
    """Whether the workloads have tiny sizes."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadFlag(f"{message}; see python -m experiments.bench --help")


def parse(argv: Sequence[str]) -> Options:
    """Parse and validate the flags. Raises BadFlag."""
    arguments = _parser().parse_args(argv)
    groups, names = several("work", arguments.work, GROUPS), several("systems", arguments.systems, SYSTEMS)
    works = quick(WORKS) if arguments.quick else WORKS
    if arguments.rounds is not None:
        works = tuple(replace(work, goes=count("rounds", arguments.rounds)) for work in works)
    plan = tuple(
        (work, tuple(name for name in names if name in work.systems)) for work in works if work.group in groups
    )
    plan = tuple((work, systems) for work, systems in plan if systems)
    if not plan:
        raise BadFlag(
            f"--systems = {arguments.systems!r}: none of them does {', '.join(groups)}; leave one of the two flags out"
        )
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise BadFlag(f"--out = {arguments.out!r}: is a file; name a folder")
    return Options(plan, out, arguments.json, arguments.quick)


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m experiments.bench", description="This simulator against bare PyTorch and other simulators."
    )
    parser.add_argument("--work", default="", help=f"some of {', '.join(GROUPS)}, with commas between (default: all)")
    parser.add_argument("--systems", default="", help=f"some of {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument(
        "--rounds", help="timed repetitions of each system: rounds, or whole runs (default: the workload's own number)"
    )
    parser.add_argument(
        "--out", default="runs/bench", help="folder for bench.json, bench.md, bench.png and logs (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="the results as one line of JSON, the last of stdout")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes on random arrays: shows that all works, says nothing of speed"
    )
    return parser


def several(key: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated list, in the order of ``known``; an empty list means all. Raises BadFlag."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = registry.nearest(name, list(known))
            raise BadFlag(f"--{key} = {name!r}: unknown{near}; choose some of {', '.join(known)}")
    return tuple(name for name in known if name in names or not names)


def count(key: str, value: str) -> int:
    """A whole number, at least 1. Raises BadFlag."""
    if not value.isdecimal() or int(value) < 1:
        raise BadFlag(f"--{key} = {value!r}: must be a whole number, at least 1")
    return int(value)
