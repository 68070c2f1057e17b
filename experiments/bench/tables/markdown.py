"""Numbers and tables as Markdown text."""

from collections.abc import Callable, Mapping, Sequence


def aligned(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a Markdown table whose columns are aligned, so that the source is readable too.

    Parameters
    ----------
    columns : the cells of each column by its heading; all columns have the same number of cells.
    """
    widths = {name: max([len(name), *map(len, cells)]) for name, cells in columns.items()}
    lines = ["| " + " | ".join(name.ljust(widths[name]) for name in columns) + " |"]
    lines.append("|" + "|".join("-" * (widths[name] + 2) for name in columns) + "|")
    for cells in zip(*columns.values(), strict=True):
        lines.append(
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True)) + " |"
        )
    return lines


def timing(values: Mapping[str, float] | None, form: Callable[[float], str]) -> str:
    """Median, smallest and largest value, formatted by ``form``: ``2.41 (2.35-2.60)``."""
    if values is None:
        return ""
    middle, low, high = (form(values[key]) for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low}-{high})"


def seconds(value: float) -> str:
    """Seconds with about three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def ratio(value: float) -> str:
    """A ratio with two decimals, or with two significant digits if it is below 0.1."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def number(value: float | None) -> str:
    """Three significant digits below 100, a whole number from there on; empty for None."""
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
