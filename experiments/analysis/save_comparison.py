"""One table and one picture of several runs, in a folder of their own beside them."""

from collections.abc import Sequence
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.curves import curves
from experiments.analysis.text_table import format_table
from fl_sim.logs.folder import new_folder


def save_comparison(runs: Sequence[Path]) -> tuple[str, str]:
    """Save a table and a picture: of one run in its folder, of several in a folder ``compare-TIME`` beside them.

    Returns
    -------
    tuple of (str, str)
        The table as text, and a line that says where the picture is. Where the disk is full, or the folder cannot be
        written, the line is a warning with the reason: the runs themselves are complete.
    """
    frame = compare(runs)
    table = format_table(frame)
    try:
        folder = runs[0] if len(runs) == 1 else new_folder(runs[0].parent, "compare")
        frame.to_csv(folder / "table.csv", index=False)
        (folder / "table.txt").write_text(table + "\n", encoding="utf-8")
        curves(runs, folder / "curves.png")
        return table, f"curves: {folder / 'curves.png'}"
    except OSError as error:
        return table, f"warning: the table and the curves could not be saved ({error}); the runs are complete"
