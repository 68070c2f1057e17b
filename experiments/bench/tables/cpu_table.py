"""The figures of ``experiments.bench`` as Markdown: a table for each group of workloads."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.tables.markdown import aligned, number, ratio, seconds, timing

Results = Mapping[str, Any]
"""The content of a results file, or a part of it."""

FEW = 4
"""In a document, a group of more workloads than this shows its first two and last two."""


def markdown(results: Results, in_document: bool = False) -> str:
    """The tables and, below them, the systems, the machine and the versions.

    Parameters
    ----------
    results : the content of bench.json.
    in_document : for docs/speed.md, which describes workloads and systems itself: the descriptions are left out, and
        so are the middle workloads of a large group.
    """
    groups: dict[str, list[Results]] = {}
    for about in results["works"]:
        groups.setdefault(about["group"], []).append(about)
    if in_document:
        groups = {group: works if len(works) <= FEW else works[:2] + works[-2:] for group, works in groups.items()}
    tables = [one_group(group, works, results["rows"], in_document) for group, works in groups.items()]
    below = [conditions(results)] if in_document else [legend(results), conditions(results)]
    return "\n\n".join([*tables, *below]) + "\n"


def one_group(group: str, works: Sequence[Results], rows: Sequence[Results], in_document: bool) -> str:
    """A heading line, the table of a group, and notes on systems that failed or did other work."""
    first = works[0]
    head = f"**{group}**." if in_document else f"**{group}**: {first['what']}."
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
            timing(row["seconds"], seconds) if row["status"] == "ok" else no_figure(row) for row in rows
        ],
        f"relative to {first['reference']}": [timing(row["ratio"], ratio) for row in rows],
        "CPU s": ["" if row["cpu_s"] is None else seconds(row["cpu_s"]["median"]) for row in rows],
        "updates/s": [number(row["updates_per_s"]) for row in rows],
        "GFLOP/s (share)": [work_rate(row) for row in rows],
        "start-up s (without imports)": [startup(row) for row in rows],
        "s until round 1": [timing(row["to_first_round_s"], seconds) for row in rows],
        "memory MB (sum of RSS)": [memory(row) for row in rows],
        "accuracy": ["" if row["accuracy"] is None else f"{row['accuracy']:.3f}" for row in rows],
    }
    lines = aligned({name: cells for name, cells in columns.items() if any(cells)})
    notes = dict.fromkeys(f"- {row['system']}: {note(row)}" for row in rows if note(row))
    return "\n".join([head, "", *lines, *(["", *notes] if notes else [])])


def work_rate(row: Results) -> str:
    """GFLOP/s and its share of what a matrix product reaches: ``102 (55%)``."""
    if row["gflops"] is None:
        return ""
    return f"{row['gflops']:.0f} ({row['matmul_share']:.0%})" if row["matmul_share"] else f"{row['gflops']:.0f}"


def startup(row: Results) -> str:
    """Seconds of the start-up with and without imports: ``9.1 (4.0)``."""
    return "" if row["startup_s"] is None else f"{row['startup_s']:.1f} ({row['setup_s']:.1f})"


def memory(row: Results) -> str:
    """Peak memory in MB, shared pages counted once, and as the sum of resident sets: ``785 (1020)``."""
    return f"{row['peak_bytes'] / 1e6:.0f} ({row['peak_rss_bytes'] / 1e6:.0f})" if row["peak_bytes"] else ""


def no_figure(row: Results) -> str:
    """The text in place of a figure."""
    return "not available" if row["status"] == "unavailable" else "failed"


def note(row: Results) -> str:
    """One line on why there is no figure, or that the system did other work; empty in the normal case."""
    if row["status"] != "ok":
        return f"{no_figure(row)}: {row['reason']}".replace("\n", " ")[:300]
    return "" if row["same_work"] else f"did other work: {row['examples']} samples."


def legend(results: Results) -> str:
    """What each system is."""
    systems = {row["system"]: row["what"] for row in results["rows"]}
    return "; ".join(f"*{system}*: {what}" for system, what in systems.items()) + "."


def conditions(results: Results) -> str:
    """Machine, versions, commit, date and seed, and how times and memory were measured."""
    about = results["machine"]
    have = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    memory = "proportional set sizes" if results["memory"] == "pss" else "resident sets"
    where = f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}"
    return (
        f"{where}; {have}; commit {results['commit']}, {results['date']}; seed 0; nothing was tuned. "
        "The systems took turns while the others were frozen; ratios are taken turn by turn. "
        f"Memory: the peak of the process tree, as the sum of {memory} and, in brackets, of resident sets."
    )
