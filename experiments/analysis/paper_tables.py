"""Tables for papers: mean and 95 % t-interval over seeds, as Markdown, LaTeX or CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from experiments.analysis.frames import interval

ESCAPED = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}
"""Characters that mean something in LaTeX."""


def paper_table(
    frame: pd.DataFrame, by: str | Sequence[str], values: Sequence[str] = ("accuracy",), digits: int = 3
) -> pd.DataFrame:
    """A table of text: for each group and value ``mean +- half of the 95 % t-interval (n)``.

    Parameters
    ----------
    frame : DataFrame
        One row for each run, with ``seed``, such as the last rounds of ``tidy``.
    by : str or sequence of str
        Columns whose values make a group.
    values : sequence of str
        Columns to average over seeds.
    digits : int
        Digits after the decimal point.

    Returns
    -------
    DataFrame
        ``by``, then one column for each value. ``n`` is the number of seeds; one seed has no interval.
    """
    keys = [by] if isinstance(by, str) else list(by)
    columns = []
    for value in values:
        found = interval(frame, keys, value)
        cells = [
            f"{mean:.{digits}f}" + (f" +- {high - mean:.{digits}f}" if high == high else "") + f" ({n})"
            for mean, high, n in zip(found["mean"], found["high"], found["n"], strict=True)
        ]
        columns.append(found[keys].assign(**{value: cells}).set_index(keys))
    if not columns:
        raise ValueError("values: names no column; give at least one, such as accuracy")
    return pd.concat(columns, axis=1).fillna("-").reset_index()


def as_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows) + "\n"


def as_latex(table: pd.DataFrame) -> str:
    """A table as LaTeX, with the rules of the package booktabs; ``+-`` becomes a plus-minus sign."""

    def cell(text: str) -> str:
        for character, escaped in ESCAPED.items():
            text = text.replace(character, escaped)
        return text.replace("+-", r"$\pm$")

    lines = [" & ".join(map(cell, map(str, row))) + r" \\" for row in (table.columns, *table.astype(str).to_numpy())]
    begin = [rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(table: pd.DataFrame) -> str:
    """A table as CSV."""
    return str(table.to_csv(index=False))


def save_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table, as its name ends: ``.md``, ``.tex`` or ``.csv``. Raises ValueError for another ending."""
    file = Path(path)
    kinds: dict[str, Callable[[pd.DataFrame], str]] = {".md": as_markdown, ".tex": as_latex, ".csv": as_csv}
    if file.suffix not in kinds:
        raise ValueError(f"path = {str(path)!r}: must end with {', '.join(kinds)}, which says the kind of table")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(kinds[file.suffix](table), encoding="utf-8")
    return file
