"""The Markdown table of ``experiments.bench.sweep``."""

from collections.abc import Mapping
from typing import Any

from experiments.bench.tables.markdown import aligned, ratio, seconds

WAYS = {
    "batch": ["--vmap_over", "local.lr=.01,.03,.1"],
    "vmap, one after another": ["--engine", "vmap", "--local.lr", "0.03"],
    "loop, one after another": ["--engine", "loop", "--local.lr", "0.03"],
}
"""One after another: the five seeds at one learning rate, times three."""


HAND = "batched products by hand"


def markdown(figures: Mapping[str, Any]) -> str:
    """A line a model."""
    rows, about = figures["sweep"], figures["machine"]
    columns = {
        f"fifteen runs, {figures['task']}": list(rows),
        "as one batch, s": [seconds(row["batch"]["seconds"]) for row in rows.values()],
    }
    for way in (*list(WAYS)[1:], HAND):
        columns[f"{way}: x as long"] = [ratio(row[way]["ratio"]) if way in row else "" for row in rows.values()]
    return (
        "\n".join(
            [*aligned(columns), "", f"{about['cpu']}, one thread; commit {figures['commit']}, {figures['date']}."]
        )
        + "\n"
    )
