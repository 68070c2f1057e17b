"""One table and one picture of several runs, in a folder of their own beside them. No paper."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.curves import curves
from experiments.analysis.text_table import format_table


def save_comparison(runs: Sequence[Path]) -> tuple[str, Path]:
    """(the table as text, the path of the picture): a single run's lie in its folder, several runs' in ``compare-TIME`` beside them."""
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
