"""How far clients' updates are from each other, round by round, of runs with ``--log_drift``."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from experiments.analysis.curves import draw_lines, labelled
from experiments.analysis.figure_files import STYLES, save
from experiments.analysis.frames import Run, read

PANELS = {
    "drift": "drift: spread of the clients' updates",
    "cosine": "cosine of a client's update with the mean",
}
"""Columns, and what the vertical axes say."""


def drift_picture(runs: Iterable[Run], path: str | Path | None = None, band: str = "interval") -> Figure:
    """Draw ``drift`` and ``cosine`` of the rounds (docs/logs.md has both) over rounds.

    Parameters
    ----------
    runs : iterable of RunLog, str or Path
        Logs, run folders, or folders of run folders.
    path : str or Path, optional
        A file to save it in, as PNG, PDF or SVG by the name's ending.
    band : str
        Over seeds, as in ``curves``.

    Raises
    ------
    ValueError
        Where a run has no such numbers.
    """
    logs = read(*runs)
    if without := [log.path.name for log in logs if log.rounds["drift"].isna().all()]:
        raise ValueError(f"{', '.join(without)}: has no drift; make the run with --log_drift")
    named = labelled(logs)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, (name, says) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        axes.set_prop_cycle(STYLES)
        draw_lines(axes, named, name, band)
        axes.set(ylabel=says)
    if path is not None:
        save(figure, path)
    return figure
