"""``python -m experiments.bench.table RESULTS.json ... [--check]``: the measured figures as Markdown, between marks in a document."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.bench import ROOT
from experiments.bench.tables import cpu_table, gpu_table, sweep_table
from experiments.bench.tables.cpu_table import Results

MARKS = "<!-- {0}:start -->", "<!-- {0}:end -->"


README = ROOT / "README.md"


def section(text: str, results: Results) -> str:
    """``text`` with its section of figures replaced. Raises ValueError where the marks are not there."""
    if "works" in results:
        name, made = "bench", cpu_table.markdown(results, brief=True)
    elif "sweep" in results:
        name, made = "sweep", sweep_table.markdown(results)
    else:
        name, made = "gpu", gpu_table.markdown(results)
    start, end = (mark.format(name) for mark in MARKS)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(
            f"README: must hold {start} and {end} once each, in this order; add them where the figures shall be"
        )
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{made}{end}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.table", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="bench.json, sweep.json or gpu.json of a run")
    parser.add_argument("--readme", type=Path, default=README, help="the file that holds the marks")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the file is stale")
    options = parser.parse_args(argv)
    try:
        old = new = options.readme.read_text(encoding="utf-8")
        for path in options.results:
            new = section(new, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check and new != old:
        print(
            f"{options.readme.name} is stale: run python -m experiments.bench.table {' '.join(map(str, options.results))}",
            file=sys.stderr,
        )
        return 1
    if not options.check:
        options.readme.write_text(new, encoding="utf-8")
    return 0
