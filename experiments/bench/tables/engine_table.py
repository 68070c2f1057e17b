"""The figures of ``experiments.bench.engines`` as Markdown."""

from collections.abc import Mapping
from typing import Any

from experiments.bench.tables.markdown import aligned, number, ratio, seconds

NONE = "-"
"""Where vmap cannot take the network."""


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with one row for each case and strategy."""
    rows = [(case, row) for case, several in figures["recipes"].items() for row in several]
    columns = {
        "recipe": [case for case, _ in rows],
        "strategy": [row["strategy"] for _, row in rows],
        "parameters": [str(row["parameters"]) for _, row in rows],
        "batch": [str(row["batch"]) for _, row in rows],
        "padded share": [ratio(row["padded"]) for _, row in rows],
        "clients at a time": [number(row["at_once"]) for _, row in rows],
        "loop, CPU s a round": [seconds(row["loop_s"]) for _, row in rows],
        "vmap": [seconds(row["vmap_s"]) if row["vmap_s"] else NONE for _, row in rows],
        "loop / vmap": [ratio(row["loop_s"] / row["vmap_s"]) if row["vmap_s"] else NONE for _, row in rows],
        "auto": [row["auto"] for _, row in rows],
        "auto / faster": [ratio(row["auto_over_best"]) for _, row in rows],
    }
    about = f"{figures['machine']['cpu']}, one thread; commit {figures['commit']}, {figures['date']}."
    return "\n".join([*aligned(columns), "", about]) + "\n"
