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

from clients.shares import looked_at
from fl_sim.population.partition import Partition, median

BUBBLES = 50
"""Up to so many clients are drawn as bubbles, more as stacked bars."""


def counts(partition: Partition, labels: np.ndarray | None) -> np.ndarray:
    """(C, K) int64: samples of each label (N,) of each client looked at, held-out ones included; one column without labels."""
    owned = [partition.client(c) for c in looked_at(partition)]
    owner = np.repeat(np.arange(len(owned)), [len(mine) for mine in owned])
    if labels is None:
        return np.bincount(owner, minlength=len(owned)).reshape(-1, 1)
    label = np.unique(labels, return_inverse=True)[1].reshape(-1)
    k = int(label.max(initial=0)) + 1
    return np.bincount(owner * k + label[np.concatenate(owned)], minlength=len(owned) * k).reshape(-1, k)


def frame(partition: Partition, labels: np.ndarray | None) -> pd.DataFrame:
    """One row a client; where clients share samples, a keyed choice of at most 1000 clients.

    Columns: ``client``; ``samples`` (all its own), of which ``held_out``; ``labels`` (how many occur), ``largest_share`` (of its
    most frequent label), ``entropy`` (of its label mix, in bits: log2 K is even), ``distance`` (total variation to the mix of all,
    0..1). The last four are missing where ``labels`` is None.
    """
    table, shown = counts(partition, labels), looked_at(partition)
    held_out = [partition.sizes(c)[1] for c in shown]
    rows = pd.DataFrame({"client": np.asarray(shown), "samples": table.sum(1), "held_out": held_out})
    if labels is None:
        return rows.assign(labels=np.nan, largest_share=np.nan, entropy=np.nan, distance=np.nan)
    mix = table / np.maximum(table.sum(1, keepdims=True), 1)
    logs = np.log2(mix, out=np.zeros_like(mix), where=mix > 0)
    distance = np.abs(mix - table.sum(0) / table.sum()).sum(1) / 2
    return rows.assign(
        labels=(table > 0).sum(1), largest_share=mix.max(1), entropy=np.abs((mix * logs).sum(1)), distance=distance
    )


def summary(partition: Partition, labels: np.ndarray | None) -> dict[str, float]:
    """The partition in a few numbers: ``clients``, ``samples``, ``min``, ``median``, ``max`` samples a client, ``moved`` by repair.

    With labels also the means over clients of ``labels``, ``largest_share``, ``entropy`` (bits) and ``distance`` (total
    variation). These are of the clients that ``frame`` shows; ``shown`` says how many where it does not show all.
    """
    rows, kinds = frame(partition, labels), partition.size_counts()
    size, clients = kinds[:, :2].sum(1), kinds[:, 2]
    told = {
        "clients": len(partition),
        "samples": (size * clients).sum(),
        "min": size.min(),
        "median": median(size, clients),
        "max": size.max(),
        "moved": partition.moved,
        **({"shown": len(rows)} if len(rows) < len(partition) else {}),
    }
    if labels is not None:
        told |= {name: rows[name].mean() for name in ("labels", "largest_share", "entropy", "distance")}
    return {name: float(value) for name, value in told.items()}


def draw(partition: Partition, labels: np.ndarray | None, path: Path, title: str = "") -> Path:
    """Save the client-by-label picture as a PNG: bubbles (area: samples) or, for more than 50 clients, bars stacked by label.

    Where ``frame`` shows some of the clients, so does the picture, from left to right.

    Returns ``path``; its folder must exist.
    """
    table = counts(partition, labels)
    names = [""] if labels is None else [str(name) for name in np.unique(labels)]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="client", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(table) <= BUBBLES:
        c, k = np.nonzero(table)
        axes.scatter(
            c, k, s=400 * table[c, k] / table.max(), c=k, cmap="tab10" if len(names) <= 10 else "viridis", alpha=0.8
        )
        axes.set(
            ylabel="label",
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(-0.7, len(names) - 0.3),
            xlim=(-0.7, len(table) - 0.3),
        )
    else:
        floor, edges = np.zeros(len(table), np.int64), np.arange(len(table) + 1) - 0.5
        for name, column in zip(names, table.T, strict=True):
            axes.stairs(floor + column, edges, baseline=floor, fill=True, label=name)
            floor = floor + column
        axes.set(ylabel="samples, by label", xlim=(-0.5, len(table) - 0.5))
        if 1 < len(names) <= 20:
            figure.legend(loc="outside right upper", title="label")
    figure.savefig(path, dpi=120)
    return path
