"""``python -m experiments.bench.table RESULTS.json ... [--check]``: the figures as Markdown, between marks in README.md. No paper.

``RESULTS.json`` is a ``bench.json`` of ``experiments.bench``, a ``sweep.json`` of ``experiments.bench.sweep``, or a ``gpu.json`` of
``experiments.bench.gpu``.

Exit codes: 0; 1 with ``--check`` where the README says something else; 2 for bad input.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.tables.markdown import aligned, number, ratio, seconds, timing

Results = Mapping[str, Any]


def markdown(results: Results, brief: bool = False) -> str:
    """A table for each group of works, and what they were made with. ``brief``: of a group of many, the first two and the last two."""
    groups: dict[str, list[Results]] = {}
    for about in results["works"]:
        groups.setdefault(about["group"], []).append(about)
    if brief:
        groups = {group: works if len(works) < 5 else works[:2] + works[-2:] for group, works in groups.items()}
    return (
        "\n\n".join([*(one_group(group, works, results["rows"]) for group, works in groups.items()), foot(results)])
        + "\n"
    )


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
        f"s a {first['go']}: median (min-max)": [
            timing(row["seconds"], seconds) if row["status"] == "ok" else unwell(row) for row in rows
        ],
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
