"""One table and one picture of several runs, in a folder of their own beside them."""

from collections.abc import Sequence
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.curves import curves
from experiments.analysis.text_table import format_table
from fl_sim.logs.folder import new_folder


def save_comparison(runs: Sequence[Path]) -> tuple[str, Path]:
    """Save a table and a picture: of one run in its folder, of several in a folder ``compare-TIME`` beside them.

    Returns
    -------
    tuple of (str, Path)
        The table as text, and the file of the picture.
    """
    folder = runs[0] if len(runs) == 1 else new_folder(runs[0].parent, "compare")
    frame = compare(runs)
    table = format_table(frame)
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "table.txt").write_text(table + "\n", encoding="utf-8")
    return table, curves(runs, folder / "curves.png")
