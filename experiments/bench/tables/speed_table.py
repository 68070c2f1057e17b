"""The small speed table of README.md: this simulator's fastest engine beside other systems, on a few workloads."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.tables.markdown import aligned, number, ratio, seconds
from experiments.bench.tables.result_rows import ratios
from experiments.bench.workloads.catalogue import OURS

Row = Mapping[str, Any]

WORKLOADS = {
    "S1": "S1: CNN on CIFAR-10, 50 clients a round; s a round",
    "S1-skew": "S1-skew: the same CNN, 10 clients of unequal size a round; s a round",
    "S2": "S2: logistic regression on MNIST, 10 clients a round; s for 100 rounds",
    "S3-100-of-100": "S3: 100 of 100 clients a round, which do nothing; s a round",
    "S3-100-of-100000": "S3: 100 of 100000 clients a round, which do nothing; s a round",
}
"""The workloads shown, by their names in the results, with the text of the first column."""
SYSTEMS = {
    "bare-careful": ("bare-careful",),
    "pfl-research": ("pfl",),
    "Flower": ("flower", "flower-careful"),
    "BlazeFL": ("blazefl",),
}
"""The other columns, with the systems of which the fastest is shown."""


def markdown(results: Mapping[str, Any]) -> str:
    """A table with one row for each workload: seconds of each system and, in brackets, relative to this simulator."""
    rows = {
        name: [row for row in results["rows"] if row["work"] == name and row["status"] == "ok"] for name in WORKLOADS
    }
    ours = {name: row for name in WORKLOADS if (row := fastest(rows[name], OURS)) is not None}
    columns = {
        "workload": [WORKLOADS[name] for name in ours],
        "this simulator": [f"{middle(row)} ({row['system'].removeprefix('ours-')})" for row in ours.values()],
    }
    for heading, systems in SYSTEMS.items():
        columns[heading] = [compared(fastest(rows[name], systems), row) for name, row in ours.items()]
    about = results["machine"]
    foot = f"{about['cpu']}, {about['cores']} cores; commit {results['commit']}, {results['date']}; seed 0."
    return "\n".join([*aligned(columns), "", foot]) + "\n"


def fastest(rows: Sequence[Row], systems: Sequence[str]) -> Row | None:
    """The row of the system with the smallest median; None if none of the systems was measured."""
    measured = [row for row in rows if row["system"] in systems]
    return min(measured, key=lambda row: float(row["seconds"]["median"]), default=None)


def compared(row: Row | None, ours: Row) -> str:
    """Median seconds and the median of the ratios turn by turn: ``4.60 (2.60 x)``; ``-`` if it was not measured."""
    if row is None:
        return "-"
    times = statistics.median(ratios(row["each"], ours["each"]))
    return f"{middle(row)} ({ratio(times) if times < 10 else number(round(times))} x)"


def middle(row: Row) -> str:
    """Median seconds."""
    return seconds(row["seconds"]["median"])
