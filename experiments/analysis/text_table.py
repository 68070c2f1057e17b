"""Data frames as text for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

import pandas as pd

WIDTH = 100
"""Characters of a line of a table on the terminal, at most."""
DIGITS = {
    "accuracy": 4,
    "personal_accuracy": 4,
    "loss": 4,
    "rounds_to_target": 0,
    "seconds": 1,
    "mb_up": 1,
    "mb_down": 1,
    "mean": 4,
    "std": 4,
}
"""Digits after the decimal point; other numbers are shown with four significant digits."""


def _cell(row: Mapping[object, object], name: str) -> str:
    """The text of one cell: a value with its spread over seeds, or how many of the seeds have one."""
    value, spread = row[name], row.get(f"{name}_std")
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)[:12] if name == "digest" else str(value)
    digits = DIGITS.get(name)
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    if name == "rounds_to_target" and row.get("reached", row.get("seeds")) != row.get("seeds"):
        return f"{text} ({row['reached']} of {row['seeds']})"
    return (
        text
        if spread is None or spread != spread
        else f"{text} +- {spread:.{4 if digits is None else max(digits, 1)}f}"
    )


def format_table(frame: pd.DataFrame, width: int | None = WIDTH) -> str:
    """The frame as aligned text: ``x`` and ``x_std`` in one column, 12 characters of a digest, ``-`` for null.

    Columns without a value in any row are left out, and ``status`` where every run is completed. Where the table would
    be wider than ``width`` characters (None: no limit), columns that have one value in all rows become a line below it;
    of what is still too wide the further columns follow below, beside the columns that tell rows apart.
    """
    names = [
        n
        for n in map(str, frame)
        if not (n.endswith("_std") and n[:-4] in frame) and not frame[n].isna().all() and n != "reached"
    ]
    if "status" in names and (frame["status"] == "completed").all():
        names.remove("status")
    rows = frame.to_dict("records")
    columns = {
        name: Column(name, [_cell(row, name) for row in rows], pd.api.types.is_numeric_dtype(frame[name]))
        for name in names
    }
    if width is None or _width(columns.values()) <= width:
        return _text(columns.values())
    same = [c for c in list(columns.values())[1:] if len(rows) > 1 and len(set(c.cells)) == 1]
    shown = [c for c in columns.values() if c not in same]
    keys = _keys(shown, width // 2)
    blocks = [list(keys)]
    for column in (c for c in shown if c not in keys):
        if len(blocks[-1]) > len(keys) and _width([*blocks[-1], column]) > width:
            blocks.append(list(keys))
        blocks[-1].append(column)
    text = "\n\n".join(map(_text, blocks))
    if same:
        facts = ", ".join(f"{c.name} {c.cells[0]}".replace(" ", "\0") for c in same)
        lines = wrap(f"in every row: {facts}", width, subsequent_indent="  ", break_on_hyphens=False)
        text += "\n" + "\n".join(line.replace("\0", " ") for line in lines)
    return text


@dataclass(frozen=True)
class Column:
    """One column of a table, as text."""

    name: str
    cells: Sequence[str]
    numeric: bool

    @property
    def lines(self) -> list[str]:
        """Its lines, all of the same width: numbers end at the right."""
        widest = max(map(len, [self.name, *self.cells]))
        placed = [text.rjust(widest) if self.numeric else text.ljust(widest) for text in (self.name, *self.cells)]
        return [placed[0], "-" * widest, *placed[1:]]


def _width(columns: Iterable[Column]) -> int:
    return sum(len(column.lines[0]) + 2 for column in columns) - 2


def _text(columns: Iterable[Column]) -> str:
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*(column.lines for column in columns), strict=True))


def _keys(columns: Sequence[Column], most: int) -> list[Column]:
    """The first columns that tell rows apart, at most ``most`` characters wide; else numbers of rows."""
    count = len(columns[0].cells)
    for n in range(1, len(columns) + 1):
        if _width(columns[:n]) <= most and len(set(zip(*(c.cells for c in columns[:n]), strict=True))) == count:
            return list(columns[:n])
    return [Column("row", [str(n) for n in range(1, count + 1)], True)]
