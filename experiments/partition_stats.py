"""How skewed a partition is: numbers a client, a summary, the usual picture. No paper.

The summary's one number of label skew is the mean total-variation distance between a client's label mix and that of
all: TV(p, q) = sum |p_k - q_k| / 2, 0 where every client is like the whole, towards 1 where each has what few others have.

Legend: N samples, C clients, K classes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fl_sim.partition import Partition

BUBBLES = 50
"""Up to so many clients are drawn as bubbles, more as stacked bars."""


def counts(partition: Partition, labels: np.ndarray | None) -> np.ndarray:
    """(C, K) int64: samples of each label (N,) of each client, held-out ones included; one column without labels."""
    label = np.zeros(len(partition.indices), np.int64) if labels is None else np.unique(labels, return_inverse=True)[1].reshape(-1)
    k = int(label.max(initial=0)) + 1
    owner = np.repeat(np.arange(len(partition)), np.diff(partition.starts))
    return np.bincount(owner * k + label[partition.indices], minlength=len(partition) * k).reshape(-1, k)


def frame(partition: Partition, labels: np.ndarray | None) -> pd.DataFrame:
    """One row a client.

    Columns: ``client``; ``samples`` (all its own), of which ``held_out``; ``labels`` (how many occur), ``largest_share`` (of its
    most frequent label), ``entropy`` (of its label mix, in bits: log2 K is even), ``distance`` (total variation to the mix of all,
    0..1). The last four are missing where ``labels`` is None.
    """
    table = counts(partition, labels)
    rows = pd.DataFrame({"client": np.arange(len(partition)), "samples": table.sum(1), "held_out": partition.held_out})
    if labels is None:
        return rows.assign(labels=np.nan, largest_share=np.nan, entropy=np.nan, distance=np.nan)
    mix = table / np.maximum(table.sum(1, keepdims=True), 1)
    logs = np.log2(mix, out=np.zeros_like(mix), where=mix > 0)
    distance = np.abs(mix - table.sum(0) / table.sum()).sum(1) / 2
    return rows.assign(labels=(table > 0).sum(1), largest_share=mix.max(1), entropy=np.abs((mix * logs).sum(1)), distance=distance)


def summary(partition: Partition, labels: np.ndarray | None) -> dict[str, float]:
    """The partition in a few numbers: ``clients``, ``samples``, ``min``, ``median``, ``max`` samples a client, ``moved`` by repair.

    With labels also the means over clients of ``labels``, ``largest_share``, ``entropy`` (bits) and ``distance`` (total variation).
    """
    rows = frame(partition, labels)
    size = rows["samples"]
    told = {
        "clients": len(rows),
        "samples": size.sum(),
        "min": size.min(),
        "median": size.median(),
        "max": size.max(),
        "moved": partition.moved,
    }
    if labels is not None:
        told |= {name: rows[name].mean() for name in ("labels", "largest_share", "entropy", "distance")}
    return {name: float(value) for name, value in told.items()}


def draw(partition: Partition, labels: np.ndarray | None, path: Path, title: str = "") -> Path:
    """Save the client-by-label picture as a PNG: bubbles (area: samples) or, for more than 50 clients, bars stacked by label.

    Returns ``path``; its folder must exist.
    """
    table = counts(partition, labels)
    names = [""] if labels is None else [str(name) for name in np.unique(labels)]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="client", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clients = np.arange(len(table))
    if len(table) <= BUBBLES:
        c, k = np.nonzero(table)
        axes.scatter(c, k, s=400 * table[c, k] / table.max(), c=k, cmap="tab10" if len(names) <= 10 else "viridis", alpha=0.8)
        axes.set(ylabel="label", yticks=range(len(names)), yticklabels=names, ylim=(-0.7, len(names) - 0.3), xlim=(-0.7, len(table) - 0.3))
    else:
        floor = np.zeros(len(table), np.int64)
        for name, column in zip(names, table.T, strict=True):
            axes.bar(clients, column, width=1.0, bottom=floor, label=name)
            floor = floor + column
        axes.set(ylabel="samples, by label", xlim=(-0.5, len(table) - 0.5))
        if 1 < len(names) <= 20:
            figure.legend(loc="outside right upper", title="label")
    figure.savefig(path, dpi=120)
    return path
