"""Which client owns how many samples of which label, as a picture: bubbles, stacked bars, or shares by group.

Legend: C clients, K labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.figure_files import COLORS
from experiments.analysis.partition_groups import grouped_shares

BUBBLES, BARS, COLUMNS = 50, 400, 200
"""Largest numbers of clients that are drawn as bubbles, as stacked bars; columns of the picture of more of them."""


def partition_picture(counts: np.ndarray, labels: Sequence[object], title: str = "") -> Figure:
    """Draw a partition.

    At most 50 clients are bubbles, whose area shows the samples of a label. At most 400 are stacked bars. More are
    sorted by their most frequent label and its share, and in groups of equal size: the colour of a cell is the mean
    share of a label among the samples of the group's clients.

    Parameters
    ----------
    counts : array (C, K)
        Samples of each label at each client: ``log.partition.to_numpy()``.
    labels : sequence (K)
        Their names.
    title : str
        Title of the picture.
    """
    names = [str(name) for name in labels]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot(title=title)
    if len(counts) <= BUBBLES:
        _bubbles(axes, counts, names)
    elif len(counts) <= BARS or len(names) == 1:
        _bars(figure, axes, counts, names)
    else:
        _shares(figure, axes, counts, names)
    return figure


def colors_of(names: Sequence[str]) -> list[Any]:
    """A colour for each label."""
    if len(names) <= len(COLORS):
        return list(COLORS[: len(names)])
    from matplotlib import colormaps  # imported here, because it loads the tables of all maps

    return list(colormaps["viridis"](np.linspace(0, 1, len(names))))


def _bubbles(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    c, k = np.nonzero(counts)
    colors = colors_of(names)
    largest = min(400.0, (500 / max(len(counts), len(names))) ** 2)
    axes.scatter(c, k, s=largest * counts[c, k] / counts.max(initial=1), c=[colors[i] for i in k], alpha=0.85)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        xlabel="client",
        ylabel="label",
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(-0.7, len(names) - 0.3),
        xlim=(-0.7, len(counts) - 0.3),
    )


def _bars(figure: Figure, axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    floor, edges = np.zeros(len(counts), np.int64), np.arange(len(counts) + 1) - 0.5
    for name, column, color in zip(names, counts.T, colors_of(names), strict=True):
        axes.stairs(floor + column, edges, baseline=floor, fill=True, label=name, color=color)
        floor = floor + column
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="client", ylabel="samples, by label", xlim=(-0.5, len(counts) - 0.5))
    if 1 < len(names) <= 20:
        figure.legend(loc="outside right upper", title="label")


def _shares(figure: Figure, axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    cells, _ = grouped_shares(counts, COLUMNS)
    image = axes.imshow(
        cells, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest", extent=(0, len(counts), len(names), 0)
    )
    step = max(1, len(names) // 20)
    axes.set(xlabel=f"{len(counts)} clients, sorted by their most frequent label", ylabel="label")
    axes.set_yticks(np.arange(0, len(names), step) + 0.5, names[::step])
    figure.colorbar(image, ax=axes, label="mean share of the clients' samples")
