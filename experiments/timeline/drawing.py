"""The picture of a timeline: a row a device; download, work and upload in different colours, unused work hatched."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.timeline.launches import Timeline, busiest

COLORS = {"download": "#56B4E9", "work": "#0B5394", "upload": "#E69F00", "waits": "#E3E3E3"}
"""Colours that can be told apart by the colour-blind, and in grey."""
LABELLED = 70
"""Rows up to which each has its client's id."""
MOST_LINES = 60
"""Server steps up to which each has a line; more are marks at the top."""


def draw(found: Timeline, shown: tuple[float, float], devices: int, file: Path, title: str) -> str:
    """Draw the busiest ``devices`` devices into ``file`` (PNG, PDF or SVG); returns what is shown of how many.

    Parameters
    ----------
    found : Timeline
        The run's timeline.
    shown : tuple of float
        From when to when, in virtual seconds.
    devices : int
        How many devices at most.
    file : Path
        The file; its name says which format it has. Missing folders are created.
    title : str
        The run, for the title.
    """
    begin, end = shown
    inside = found.launches[(found.launches["waits"] > begin) & (found.launches["begin"] < end)]
    rows = busiest(inside, devices)
    order = _order(rows)
    count, every = len(order), found.launches["client"].nunique()
    height = min(max(0.3 * count, 1.6), 5.5 + 0.045 * count)
    figure = Figure(figsize=(11, height + 1.5), layout="constrained")
    axes = figure.subplots()
    _bars(axes, rows, {client: place for place, client in enumerate(order)}, end, thin=count > LABELLED)
    what = _lines(axes, found, begin, end)
    whom = f"{count} devices" if count == every else f"the {count} busiest of {every} devices"
    last = max(float(found.steps[-1]), float(found.launches["end"].max()) if found.asynchronous else 0.0)
    when = f"virtual seconds {begin:g} to {end:.6g}" + (f" of {last:.6g}" if end < last else "")
    axes.set(xlim=(begin, end), ylim=(count - 0.5, -0.5), xlabel="virtual time (s)")
    axes.set_title(f"{title}: {whom}, {when}", fontsize=10, loc="left", pad=10)
    _name_rows(axes, rows, order)
    hatched = Patch(facecolor="white", edgecolor="#555555", hatch="/////", linewidth=0.5)
    handles: list[Artist] = [Patch(color=color) for color in COLORS.values()]
    names = [*("waits" if name == "waits" else name for name in COLORS), "work that is not used", what]
    handles += [hatched, axes.plot([], [], color="#B00020", linewidth=1)[0]]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize="small", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    return f"{whom}, {when}"


def _order(rows: pd.DataFrame) -> list[int]:
    """The clients from top to bottom: where each has one speed class, by that and mean duration; else by id."""
    classes = rows.groupby("client")["speed_class"].agg(["min", "max"])
    if (classes["min"] == classes["max"]).all():
        classes["mean"] = (rows["full"] - rows["begin"]).groupby(rows["client"]).mean()
        return [int(client) for client in classes.reset_index().sort_values(["min", "mean", "client"])["client"]]
    return sorted(map(int, classes.index))


def _name_rows(axes: Axes, rows: pd.DataFrame, order: list[int]) -> None:
    """Label each row, or where there are too many the speed classes."""
    if len(order) <= LABELLED:
        size = 8 if len(order) <= 30 else 6
        axes.set_yticks(range(len(order)), [str(client) for client in order], fontsize=size)
        axes.set_ylabel("client")
        return
    speed = rows.groupby("client")["speed_class"].first()
    classes = speed.reindex(order).to_numpy()
    if (np.diff(classes) < 0).any() or not len(np.unique(classes)) > 1:
        places = np.linspace(0, len(order) - 1, 11).round().astype(int)
        axes.set_yticks(places, [str(order[i]) for i in places], fontsize=8)
        axes.set_ylabel("client")
        return
    borders = np.flatnonzero(np.diff(classes)) + 0.5
    axes.hlines(borders, *axes.get_xlim(), color="black", linewidth=0.6)
    middles = [float(np.flatnonzero(classes == k).mean()) for k in np.unique(classes)]
    axes.set_yticks(middles, [f"class {int(k)}" for k in np.unique(classes)], rotation=90, va="center", fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("speed class of devices, 0 for the fastest")


def _bars(axes: Axes, rows: pd.DataFrame, places: dict[int, int], end: float, thin: bool) -> None:
    """The bars of all launches: one collection of rectangles for each colour, with and without hatching."""
    place = rows["client"].map(places).to_numpy(np.float64)
    begin, stop, full = (rows[name].to_numpy() for name in ("begin", "end", "full"))
    there, last = np.minimum(begin + rows["down"].to_numpy(), stop), full - rows["up"].to_numpy()
    done = np.clip(last, there, stop)
    half, used = 0.5 if thin else 0.4, rows["used"].to_numpy()
    parts = {"download": (begin, there), "work": (there, done), "upload": (done, stop)}
    waits = rows["waits"].to_numpy()
    _rectangles(axes, stop, np.minimum(waits, end), place, half * 0.6, COLORS["waits"], False)
    for name, (left, right) in parts.items():
        _rectangles(axes, left[used], right[used], place[used], half, COLORS[name], False)
        _rectangles(axes, left[~used], right[~used], place[~used], half, COLORS[name], True)


def _rectangles(
    axes: Axes, left: np.ndarray, right: np.ndarray, place: np.ndarray, half: float, color: str, hatched: bool
) -> None:
    """Rectangles from ``left`` to ``right``, with a thin white edge, so that neighbours are told apart."""
    some = right > left
    left, right, place = left[some], right[some], place[some]
    low, high = place - half, place + half
    corners = np.stack([np.stack([left, low], 1), np.stack([right, low], 1), np.stack([right, high], 1)], 1)
    corners = np.concatenate([corners, np.stack([left, high], 1)[:, None]], 1)
    if hatched:
        how = {"facecolor": "white", "edgecolor": color, "hatch": "/////", "linewidth": 0.4}
    else:
        how = {"facecolor": color, "edgecolor": "white", "linewidth": 0.25}
    axes.add_collection(PolyCollection(list(corners), zorder=2, **how))  # type: ignore[arg-type]


def _lines(axes: Axes, found: Timeline, begin: float, end: float) -> str:
    """A line where each round ends; of many server steps marks at the top. Returns what they are."""
    steps = found.steps[(found.steps > begin) & (found.steps <= end)]
    name = "server step" if found.asynchronous else "end of a round"
    if len(steps) <= MOST_LINES:
        axes.vlines(steps, 0, 1, transform=axes.get_xaxis_transform(), color="#B00020", linewidth=0.9, zorder=3)
    else:
        axes.vlines(
            steps, 1, 1.012, transform=axes.get_xaxis_transform(), color="#B00020", linewidth=0.4, clip_on=False
        )
    return name
