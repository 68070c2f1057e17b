"""Pictures of round logs: curves over rounds, virtual time or bytes with a band over seeds; personal accuracy."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from experiments.analysis.figure_files import COLORS, STYLES, save
from experiments.analysis.frames import MEGABYTE, Run, groups, read, tidy
from fl_sim.logs.reader import RunLog

LABELS = {
    "accuracy": "test accuracy",
    "loss": "test loss",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "val_unseen_accuracy": "accuracy of validation clients",
    "train_set_accuracy": "accuracy on all training samples",
    "train_set_loss": "loss on all training samples",
}
"""Labels of the vertical axis; a metric that is not in this table is labelled by its name."""

AXES = {
    "round": "round",
    "seconds": "wall time, evaluation included (s)",
    "virtual_time": "virtual time (s)",
    "bytes": "to and from clients (MB)",
}
"""What may be the horizontal axis, and its label."""
POINTS = 400
"""Points of a curve over time or bytes."""
BANDS = ("range", "interval")
"""What a band over seeds may be: from the lowest to the highest, or the 95 % t-interval of their mean."""


def curves(
    runs: Iterable[Run],
    path: str | Path | None = None,
    metric: str | None = None,
    axis: str = "round",
    band: str = "range",
) -> Figure:
    """Draw a metric by round: one line for each strategy and differing setting, with a band over seeds.

    The line is the mean over seeds, at the rounds in which all seeds have the metric: where one ended earlier, the line
    ends with it. Over time and bytes, which differ by seed, a seed has the value that was evaluated last. The legend
    has the number of seeds. Runs with personal evaluations get a second panel: the mean accuracy of clients on their
    held-out samples before and after fine-tuning, at the last evaluation, as a mean over seeds.

    Parameters
    ----------
    runs : iterable of RunLog, str or Path
        Logs, run folders, or folders of run folders.
    path : str or Path, optional
        A file to save it in, as PNG, PDF or SVG by the name's ending; missing folders are created.
    metric : str, optional
        A column of the rounds; default: accuracy, or loss where no run has an accuracy (a regression).
    axis : str (default: "round")
        The horizontal axis: ``round``, ``seconds`` (of this log, evaluation included), ``virtual_time`` or ``bytes``
        (of models, to and from clients, since the beginning).
    band : str (default: "range")
        ``range``: from the lowest seed to the highest; ``interval``: the 95 % interval of the mean over seeds by
        Student's t, point by point, which with two or three seeds is wide. One seed has no band.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        For a metric or an axis that no run has, another band, and another ending.
    """
    if axis not in AXES:
        raise ValueError(f"axis = {axis!r}: must be one of {', '.join(AXES)}")
    if band not in BANDS:
        raise ValueError(f"band = {band!r}: must be one of {', '.join(BANDS)}")
    logs = read(*runs)
    table = tidy(*logs)
    name = metric or ("accuracy" if table["accuracy"].notna().any() else "loss")
    if name not in table:
        raise ValueError(f"metric = {name!r}: no run has it; they have {', '.join(map(str, table.columns))}")
    figure = _drawn(labelled(logs), name, axis, band)
    if path is not None:
        save(figure, path)
    return figure


def _drawn(named: dict[str, list[RunLog]], name: str, axis: str, band: str) -> Figure:
    """The picture of a metric, and of personal accuracy where the runs have it."""
    personal = _personal(named)
    figure = Figure(figsize=(11 if len(personal) else 7, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if len(personal) else 1, squeeze=False)[0]
    panels[0].set_prop_cycle(STYLES)
    if axis == "round":
        draw_lines(panels[0], named, name, band)
    else:
        _steps(panels[0], named, name, axis, band)
    if "accuracy" in name and band == "interval":  # an interval may pass 0 or 1, an accuracy does not
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(max(low, -0.02), min(high, 1.02))
    if len(personal):
        _bars(panels[1], personal)
    return figure


def labelled(logs: Iterable[RunLog]) -> dict[str, list[RunLog]]:
    """The runs of each line, one a seed, by its label: the strategy and the settings in which runs differ."""
    keys, grouped = groups(logs)
    return {_label(keys, values): group for values, group in grouped.items()}


def half_interval(std: np.ndarray, seeds: int) -> np.ndarray:
    """Half of the 95 % t-interval of a mean over seeds, whose standard deviation is ``std`` (P,); 0 of one seed."""
    return std * 0 if seeds < 2 else stats.t.ppf(0.975, seeds - 1) * std / seeds**0.5


def counted(label: str, logs: Sequence[object]) -> str:
    """A label with its number of seeds, where there are several."""
    return f"{label} (n = {len(logs)})" if len(logs) > 1 else label


def _label(keys: list[str], values: tuple[object, ...]) -> str:
    """Label of a line, such as ``fedprox, mu=0.01``: the strategy and the settings in which runs differ."""
    more = [
        f"{key.rsplit('.', 1)[-1]}={value}"
        for key, value in zip(keys[1:], values[1:], strict=True)
        if value is not None
    ]
    return ", ".join([str(values[0]), *more])


def draw_lines(axes: Axes, named: dict[str, list[RunLog]], name: str, band: str = "range") -> None:
    """Draw one line and band for each label."""
    for label, logs in named.items():
        line = tidy(*logs).groupby("round")[name].agg(["mean", "min", "max", "std", "count"])
        line, some = line[line["count"] == len(logs)], line[line["count"] > 0]
        if len(some) and not len(line):
            cure = "leave out those that broke off"
            raise ValueError(f"{label}: in no round all of its {len(logs)} runs have {name}; {cure}")
        if len(some) and some.index[-1] > line.index[-1]:
            what = f"the curve of {label} ends with round {line.index[-1]}, the last in which all {len(logs)} runs have"
            warnings.warn(f"{what} {name}", stacklevel=3)
        marker = "." if len(line) < 30 else ""
        color = axes.plot(line.index, line["mean"], label=counted(label, logs), marker=marker)[0].get_color()
        low, high = line["min"], line["max"]
        if band == "interval":
            half = half_interval(line["std"].to_numpy(), len(logs))
            low, high = line["mean"] - half, line["mean"] + half
        axes.fill_between(line.index, low, high, color=color, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="round", ylabel=LABELS.get(name, name))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _steps(axes: Axes, named: dict[str, list[RunLog]], name: str, axis: str, band: str) -> None:
    """Draw one line and band for each label over time or bytes."""
    for label, logs in named.items():
        found = [_by(log, name, axis) for log in logs]
        if any(line.empty for line in found):
            raise ValueError(
                f"{label}: not all of its {len(logs)} runs have {name} and {axis}; leave out those without"
            )
        step_line(axes, counted(label, logs), found, band)
    axes.set(xlabel=AXES[axis], ylabel=LABELS.get(name, name))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def step_line(axes: Axes, label: str, runs: "Sequence[pd.Series[float]]", band: str = "range") -> None:
    """Draw the mean of several runs, and a band as in ``curves``: each has its last value.

    ``runs`` : of each the values by time or bytes, ascending. The line ends with the run that ends first.
    """
    first, last = max(line.index[0] for line in runs), min(line.index[-1] for line in runs)
    places = np.linspace(first, last, POINTS)
    values = np.stack([line.to_numpy()[np.searchsorted(line.index, places, side="right") - 1] for line in runs])
    color = axes.plot(places, values.mean(0), label=label, drawstyle="steps-post")[0].get_color()
    low, high = values.min(0), values.max(0)
    if band == "interval" and len(values) > 1:
        half = half_interval(values.std(0, ddof=1), len(values))
        low, high = values.mean(0) - half, values.mean(0) + half
    axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0, step="post")


def _by(log: RunLog, name: str, axis: str) -> "pd.Series[float]":
    """A run's metric by time or bytes, where it was evaluated."""
    rounds = log.rounds
    if axis == "bytes":
        at = (rounds["bytes_down"].fillna(0) + rounds["bytes_up"].fillna(0)).cumsum() / MEGABYTE
    elif axis == "seconds":
        at = (rounds["seconds"].fillna(0) + rounds["evaluate_seconds"].fillna(0)).cumsum()
        at = at.where(rounds["seconds"].notna())
    else:
        at = rounds["virtual_time"].astype(float)
    line = pd.Series(rounds[name].to_numpy(np.float64), index=pd.Index(at.to_numpy(np.float64))).dropna()
    return line[line.index.notna()]


def _personal(labelled: dict[str, list[RunLog]]) -> pd.DataFrame:
    """Accuracy before and after fine-tuning by label; no row where a run has no personal evaluation."""
    columns = ["personal_accuracy_before", "personal_accuracy"]
    last = {label: [log.rounds[columns].dropna().tail(1) for log in logs] for label, logs in labelled.items()}
    means = {label: pd.concat(rows).mean() for label, rows in last.items() if all(map(len, rows))}
    return pd.DataFrame(means).T.dropna()


def _bars(axes: Axes, personal: pd.DataFrame) -> None:
    """Draw two bars for each label: accuracy before and after fine-tuning."""
    places = range(len(personal))
    for offset, column, label, color in (
        (-0.2, "personal_accuracy_before", "before", COLORS[1]),
        (0.2, "personal_accuracy", "after", COLORS[0]),
    ):
        where = [place + offset for place in places]
        axes.bar(where, personal[column], width=0.4, label=f"{label} fine-tuning", color=color)
    axes.set_xticks(list(places), [str(label) for label in personal.index], rotation=30, ha="right", fontsize="small")
    axes.set(ylabel="accuracy on clients' held-out samples", ylim=(0, 1))
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
