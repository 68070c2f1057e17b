"""One table and one picture of several runs, in a folder of their own beside them."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.curves import curves
from experiments.analysis.text_table import format_table


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


def new_folder(parent: Path, name: str) -> Path:
    """A folder ``NAME-TIME`` in ``parent`` that was not there before."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: count never ends")
