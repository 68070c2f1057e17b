"""Clients' accuracy before and after fine-tuning, client by client, of one run's last personal evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.figure_files import COLORS, save
from experiments.analysis.frames import Run, read


def personal_picture(run: Run, path: str | Path | None = None, server_round: int | None = None) -> Figure:
    """Draw each client's accuracy before and after fine-tuning, on its held-out samples.

    On the left all clients, sorted: which share of them has at most this accuracy. On the right each client, after
    against before: above the line it gained; the area of a point is the number of clients there. Clients that never
    train have another colour.

    Parameters
    ----------
    run : RunLog, str or Path
        One run.
    path : str or Path, optional
        A file to save it in, as PNG, PDF or SVG by the name's ending.
    server_round : int, optional
        The round; default: that of the last personal evaluation.

    Raises
    ------
    ValueError
        Where the run has no personal evaluation (in that round), or several runs are given.
    """
    logs = read(run)
    if len(logs) > 1:
        raise ValueError(f"run = {str(run)!r}: holds {len(logs)} runs; name one of them")
    clients = logs[0].clients
    rows = clients[(clients["phase"] == "personal") & clients["accuracy"].notna() & clients["accuracy_before"].notna()]
    if rows.empty:
        raise ValueError(f"{logs[0].path}: has no personal accuracies; make the run with --personalize_steps 5, say")
    known = sorted(map(int, rows["round"].unique()))
    number = known[-1] if server_round is None else server_round
    if number not in known:
        raise ValueError(
            f"server_round = {number}: has no personal evaluation; these have: {', '.join(map(str, known))}"
        )
    rows = rows[rows["round"] == number]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _sorted(left, rows)
    _pairs(right, rows)
    figure.suptitle(f"{logs[0].path.name}, round {number}: {len(rows)} clients", fontsize="medium")
    if path is not None:
        save(figure, path)
    return figure


def _sorted(axes: Axes, rows: pd.DataFrame) -> None:
    """The share of clients with at most an accuracy."""
    share = np.arange(1, len(rows) + 1) / len(rows)
    for column, label, style, color in (
        ("accuracy_before", "before fine-tuning", "--", COLORS[1]),
        ("accuracy", "after fine-tuning", "-", COLORS[0]),
    ):
        values = np.sort(rows[column].to_numpy(float))
        text = f"{label}, mean {values.mean():.3f}"
        axes.step([0, *values, 1], [0, *share, 1], where="post", label=text, linestyle=style, color=color)
    axes.set(xlabel="accuracy on own held-out samples", ylabel="share of clients with at most this", xlim=(0, 1))
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize="small")


def _pairs(axes: Axes, rows: pd.DataFrame) -> None:
    """Accuracy after against before."""
    new = rows["unseen"].eq(True) if "unseen" in rows else pd.Series(False, rows.index)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=1)
    for which, label, marker, color in (
        (~new, "clients that train", "o", COLORS[0]),
        (new, "clients that never train", "D", COLORS[3]),
    ):
        pairs = rows[which][["accuracy_before", "accuracy"]].to_numpy(float)
        if len(pairs):
            places, counts = np.unique(pairs.round(4), axis=0, return_counts=True)
            sizes = np.minimum(24.0 * counts, 400)
            axes.scatter(
                places[:, 0], places[:, 1], s=sizes, marker=marker, color=color, alpha=0.5, linewidth=0, label=label
            )
    axes.set(xlabel="before", ylabel="after fine-tuning", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
