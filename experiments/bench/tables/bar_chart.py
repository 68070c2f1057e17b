"""The seconds of each system as a bar chart, with one panel for each group of workloads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
from matplotlib.axes import Axes

COLOURS = {"ours": "#2a6f97", "bare": "#6c757d"}
"""Colour of a bar by the first part of the system's name."""
OTHER_COLOUR = "#e09f3e"
"""Colour of all other systems."""
LOGARITHMIC_FROM = 50.0
"""The axis is logarithmic if the longest bar is more than this many times as long as the shortest."""

Row = Mapping[str, Any]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the chart to ``path`` as PNG. Bars are medians; whiskers reach from the smallest to the largest value."""
    variants = {about["work"]: about["variant"] for about in results["works"]}
    heads = {about["group"]: f"{about['group']}: seconds a {about['go']}" for about in results["works"]}
    groups = {about["work"]: about["group"] for about in results["works"]}
    panels: dict[str, list[Row]] = {}
    for row in results["rows"]:
        if row["seconds"]:
            panels.setdefault(groups[row["work"]], []).append(row)
    if not panels:
        return
    heights = [len(rows) + 1.5 for rows in panels.values()]
    figure = matplotlib.figure.Figure(figsize=(8, 0.26 * sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for place, (group, rows) in zip(axes, panels.items(), strict=True):
        bars(place, rows, [f"{variants[row['work']] or ''}  {row['system']}".strip() for row in rows])
        place.set_title(heads[group], fontsize=9, loc="left")
    figure.savefig(path, dpi=120)


def bars(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Draw the bars of one panel."""
    middle = [row["seconds"]["median"] for row in rows]
    low = [row["seconds"]["median"] - row["seconds"]["min"] for row in rows]
    high = [row["seconds"]["max"] - row["seconds"]["median"] for row in rows]
    colours = [COLOURS.get(row["system"].partition("-")[0], OTHER_COLOUR) for row in rows]
    places = list(range(len(rows)))
    axes.barh(places, middle, xerr=[low, high], color=colours, height=0.65, error_kw={"lw": 1})
    axes.set_yticks(places, names)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(f" {row['seconds']['median']:.3g}", (row["seconds"]["max"], place), va="center", fontsize=7)
    if max(middle) > LOGARITHMIC_FROM * min(middle):
        axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
