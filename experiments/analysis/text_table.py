"""Data frames as text for the terminal."""

from collections.abc import Mapping

import pandas as pd

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


def format_table(frame: pd.DataFrame) -> str:
    """The frame as aligned text: ``x`` and ``x_std`` in one column, 12 characters of a digest, ``-`` for null.

    Columns without a value in any row are left out, and ``status`` where every run is completed.
    """
    names = [
        n
        for n in map(str, frame)
        if not (n.endswith("_std") and n[:-4] in frame) and not frame[n].isna().all() and n != "reached"
    ]
    if "status" in names and (frame["status"] == "completed").all():
        names.remove("status")
    rows = [names, *([_cell(row, name) for name in names] for row in frame.to_dict("records"))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in names]
    lines = [
        "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
