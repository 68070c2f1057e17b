"""The figures of ``experiments.bench.sweep`` as Markdown, and its ways of running fifteen runs."""

from collections.abc import Mapping
from typing import Any

from experiments.bench.tables.markdown import aligned, ratio, seconds

WAYS = {
    "batch": ["--vmap_over", "local.lr=.01,.03,.1"],
    "vmap, one after another": ["--engine", "vmap", "--local.lr", "0.03"],
    "loop, one after another": ["--engine", "loop", "--local.lr", "0.03"],
}
"""Flags of each way of running, by its name in sweep.json.

For the two ways without a batch, only the runs of one learning rate are measured, and their time is tripled.
"""
BY_HAND = "batched products by hand"
"""Name in sweep.json of the time of the arithmetic alone: ``experiments.bench.sweep.batched_products``."""


def markdown(figures: Mapping[str, Any]) -> str:
    """The table, with one row for each model."""
    rows, about = figures["sweep"], figures["machine"]
    columns = {
        f"model, {figures['task']}": list(rows),
        "fifteen runs as one batch, s": [seconds(row["batch"]["seconds"]) for row in rows.values()],
    }
    for way in (*list(WAYS)[1:], BY_HAND):
        columns[f"{way}: times as long"] = [ratio(row[way]["ratio"]) if way in row else "" for row in rows.values()]
    where = f"{about['cpu']}, one thread; commit {figures['commit']}, {figures['date']}; seeds 0-4, nothing was tuned."
    return "\n".join([*aligned(columns), "", where]) + "\n"
