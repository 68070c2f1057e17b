"""A sweep of two settings as a heat map."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.figure_files import save

TABLE = "table.csv"
"""The file of a sweep's folder that has its trials."""


def sweep_picture(
    sweep: str | Path | pd.DataFrame,
    path: str | Path | None = None,
    value: str = "val_accuracy",
    x: str | None = None,
    y: str | None = None,
) -> Figure:
    """Draw a number of a sweep's trials by two of its settings; each cell has its mean over seeds.

    Parameters
    ----------
    sweep : str, Path or DataFrame
        A sweep's folder, or its table.
    path : str or Path, optional
        A file to save it in, as PNG, PDF or SVG by the name's ending.
    value : str
        The column to draw.
    x, y : str, optional
        The settings of the axes; default: the first two that vary.

    Raises
    ------
    ValueError
        For a folder without such a table, a column that is not there, and where several trials are at one place,
        because more than these two settings vary.
    """
    frame = sweep if isinstance(sweep, pd.DataFrame) else _table(Path(sweep))
    columns = list(map(str, frame))
    if value not in columns or frame[value].isna().all():
        raise ValueError(f"value = {value!r}: the sweep has no such number; it has {', '.join(columns)}")
    varied = columns[columns.index("trial") + 1 : columns.index("state")] if {"trial", "state"} <= {*columns} else []
    x, y = x or next((name for name in varied if name != y), None), y
    y = y or next((name for name in varied if name != x), None)
    if x is None or y is None or x not in columns or y not in columns:
        raise ValueError(f"x = {x!r}, y = {y!r}: must be two settings of the sweep, which varies {', '.join(varied)}")
    known = frame[frame[value].notna()]
    if len(repeated := known[known.duplicated([x, y])]):
        where = ", ".join(f"{name} = {repeated.iloc[0][name]}" for name in (x, y))
        more = ", ".join(name for name in varied if name not in (x, y))
        raise ValueError(f"several trials have {where}: {more} varies too; give a table with one value of it")
    cells = frame.pivot_table(index=y, columns=x, values=value, dropna=False, sort=True)
    figure = Figure(figsize=(2.6 + 0.9 * max(3, cells.shape[1]), 1.8 + 0.55 * max(3, cells.shape[0])))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot(facecolor="#dddddd")
    falls = "loss" in value
    image = axes.imshow(cells.to_numpy(float), cmap="cividis_r" if falls else "cividis", aspect="auto", origin="lower")
    axes.set(xlabel=x, ylabel=y)
    axes.set_xticks(range(cells.shape[1]), list(map(str, cells.columns)))
    axes.set_yticks(range(cells.shape[0]), list(map(str, cells.index)))
    for (row, column), number in np.ndenumerate(cells.to_numpy(float)):
        if number == number:
            red, green, blue, _ = image.to_rgba(number)
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axes.text(column, row, f"{number:.3g}", ha="center", va="center", color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label=f"{value}, mean over seeds")
    if path is not None:
        save(figure, path)
    return figure


def _table(folder: Path) -> pd.DataFrame:
    if not (folder / TABLE).is_file():
        raise ValueError(f"sweep = {str(folder)!r}: has no {TABLE}; name the folder of a sweep (its --out)")
    return pd.read_csv(folder / TABLE)
