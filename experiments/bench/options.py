"""The command line: few flags, and errors that name the key, the value and the cure. No paper."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from experiments.bench.workloads.catalogue import GROUPS, SYSTEMS, WORKS, Work, quick
from fl_sim import registry


class BadFlag(ValueError):
    """What is wrong with a flag."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    works: tuple[tuple[Work, tuple[str, ...]], ...]
    """Each work with the systems to run on it."""
    out: Path
    json: bool
    quick: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadFlag(f"{message}; see python -m experiments.bench --help")


def parse(argv: Sequence[str]) -> Options:
    """The flags. Raises BadFlag."""
    parser = _Parser(
        prog="python -m experiments.bench", description="This simulator against bare PyTorch and other simulators."
    )
    parser.add_argument("--work", default="", help=f"some of {', '.join(GROUPS)}, with commas between (default: all)")
    parser.add_argument("--systems", default="", help=f"some of {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument("--rounds", help="timed goes of each system: rounds, or whole runs (default: the work's own)")
    parser.add_argument(
        "--out", default="runs/bench", help="folder for bench.json, bench.md, bench.png and logs (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="the results as one line of JSON, the last of stdout")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes on random arrays: shows that all works, says nothing of speed"
    )
    asked = parser.parse_args(argv)
    groups, names = several("work", asked.work, GROUPS), several("systems", asked.systems, SYSTEMS)
    works = quick(WORKS) if asked.quick else WORKS
    if asked.rounds is not None:
        works = tuple(replace(work, goes=count("rounds", asked.rounds)) for work in works)
    plan = tuple(
        (work, tuple(name for name in names if name in work.systems)) for work in works if work.group in groups
    )
    plan = tuple((work, systems) for work, systems in plan if systems)
    if not plan:
        raise BadFlag(
            f"--systems = {asked.systems!r}: none of them does {', '.join(groups)}; leave one of the two flags out"
        )
    out = Path(asked.out)
    if out.exists() and not out.is_dir():
        raise BadFlag(f"--out = {asked.out!r}: is a file; name a folder")
    return Options(plan, out, asked.json, asked.quick)


def several(key: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names with commas between; none means all. Raises BadFlag."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = registry.nearest(name, list(known))
            raise BadFlag(f"--{key} = {name!r}: unknown{near}; choose some of {', '.join(known)}")
    return tuple(name for name in known if name in names or not names)


def count(key: str, value: Any) -> int:
    """A whole number from 1. Raises BadFlag."""
    if not str(value).isdecimal() or int(value) < 1:
        raise BadFlag(f"--{key} = {value!r}: must be a whole number, at least 1")
    return int(value)
