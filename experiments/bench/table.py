"""``python -m experiments.bench.table RESULTS.json ... [--check]``: the figures as Markdown, between marks in README.md. No paper.

``RESULTS.json`` is a ``bench.json`` of ``experiments.bench``, a ``sweep.json`` of ``experiments.bench.sweep``, or a ``gpu.json`` of
``experiments.bench.gpu``.

Exit codes: 0; 1 with ``--check`` where the README says something else; 2 for bad input.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench import ROOT

MARKS = "<!-- {0}:start -->", "<!-- {0}:end -->"
README = ROOT / "README.md"

Results = Mapping[str, Any]


def markdown(results: Results, brief: bool = False) -> str:
    """A table for each group of works, and what they were made with. ``brief``: of a group of many, the first two and the last two."""
    groups: dict[str, list[Results]] = {}
    for about in results["works"]:
        groups.setdefault(about["group"], []).append(about)
    if brief:
        groups = {group: works if len(works) < 5 else works[:2] + works[-2:] for group, works in groups.items()}
    return "\n\n".join([*(one_group(group, works, results["rows"]) for group, works in groups.items()), foot(results)]) + "\n"


def one_group(group: str, works: Sequence[Results], rows: Sequence[Results]) -> str:
    """A heading line and a table."""
    first = works[0]
    head = f"**{group}**: {first['what']}."
    if first["random_arrays"]:
        head += " On random arrays of the data set's shapes, so without an accuracy."
    if first["matmul_gflops"]:
        head += f" A plain matrix product reaches {first['matmul_gflops']['median']:.0f} GFLOP/s."
    variants = {about["work"]: about["variant"] or "" for about in works}
    rows = [row for row in rows if row["work"] in variants]
    columns = {
        "clients": [variants[row["work"]] for row in rows],
        "system": [row["system"] for row in rows],
        f"s a {first['go']}: median (min-max)": [timing(row["seconds"], seconds) if row["status"] == "ok" else unwell(row) for row in rows],
        f"x {first['reference']}": [timing(row["ratio"], ratio) for row in rows],
        "processor s": ["" if row["cpu_s"] is None else seconds(row["cpu_s"]["median"]) for row in rows],
        "updates/s": [number(row["updates_per_s"]) for row in rows],
        "GFLOP/s (share)": [work_rate(row) for row in rows],
        "start-up s (without imports)": [startup(row) for row in rows],
        "s to round 1": [timing(row["to_first_round_s"], seconds) for row in rows],
        "memory MB (sum of RSS)": [memory(row) for row in rows],
        "accuracy": ["" if row["accuracy"] is None else f"{row['accuracy']:.3f}" for row in rows],
    }
    lines = aligned({name: cells for name, cells in columns.items() if any(cells)})
    notes = dict.fromkeys(f"- {row['system']}: {note(row)}" for row in rows if note(row))
    return "\n".join([head, "", *lines, *(["", *notes] if notes else [])])


def aligned(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A Markdown table that reads as text too."""
    widths = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    lines = ["| " + " | ".join(name.ljust(widths[name]) for name in columns) + " |"]
    lines.append("|" + "|".join("-" * (widths[name] + 2) for name in columns) + "|")
    for cells in zip(*columns.values(), strict=True):
        lines.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True)) + " |")
    return lines


def timing(values: Mapping[str, float] | None, form: Any) -> str:
    """``2.41 (2.35-2.60)``."""
    if values is None:
        return ""
    middle, low, high = (form(values[key]) for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low}-{high})"


def seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def ratio(value: float) -> str:
    """Two decimals, or two digits."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def number(value: float | None) -> str:
    """Three digits, or whole."""
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def work_rate(row: Results) -> str:
    """``102 (55 %)``: of what a plain matrix product reaches."""
    if row["gflops"] is None:
        return ""
    return f"{row['gflops']:.0f} ({row['matmul_share']:.0%})" if row["matmul_share"] else f"{row['gflops']:.0f}"


def startup(row: Results) -> str:
    """``9.1 (4.0)``."""
    return "" if row["startup_s"] is None else f"{row['startup_s']:.1f} ({row['setup_s']:.1f})"


def memory(row: Results) -> str:
    """``785 (1020)``."""
    return f"{row['peak_bytes'] / 1e6:.0f} ({row['peak_rss_bytes'] / 1e6:.0f})" if row["peak_bytes"] else ""


def unwell(row: Results) -> str:
    """In place of a figure."""
    return "not available" if row["status"] == "unavailable" else "failed"


def note(row: Results) -> str:
    """Why there is no figure, or what is wrong with it, in one line; mostly nothing."""
    if row["status"] != "ok":
        return f"{unwell(row)}: {row['reason']}".replace("\n", " ")[:300]
    return "" if row["same_work"] else f"did other work: {row['examples']} samples."


def foot(results: Results) -> str:
    """Machine, versions, commit, and what the words mean."""
    about = results["machine"]
    have = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    memory = "proportional set sizes" if results["memory"] == "pss" else "resident sets"
    systems = {row["system"]: row["what"] for row in results["rows"]}
    legend = "; ".join(f"*{system}*: {what}" for system, what in systems.items())
    where = f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}"
    return (
        f"{legend}.\n\n{where}; {have}; commit {results['commit']}, {results['date']}. "
        "Systems ran in turn, go by go, the others frozen; ratios are taken turn by turn. "
        f"Memory: the peak of the process tree, as the sum of {memory} and, in brackets, of resident sets."
    )


def section(text: str, results: Results) -> str:
    """``text`` with its section of figures replaced. Raises ValueError where the marks are not there."""
    from experiments.bench import gpu_table, sweep  # which have their tables aligned here

    if "works" in results:
        name, made = "bench", markdown(results, brief=True)
    elif "sweep" in results:
        name, made = "sweep", sweep.markdown(results)
    else:
        name, made = "gpu", gpu_table.markdown(results)
    start, end = (mark.format(name) for mark in MARKS)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"README: must hold {start} and {end} once each, in this order; add them where the figures shall be")
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
            f"{options.readme.name} is stale: run python -m experiments.bench.table {' '.join(map(str, options.results))}", file=sys.stderr
        )
        return 1
    if not options.check:
        options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
