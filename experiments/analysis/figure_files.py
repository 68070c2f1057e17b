"""Saving pictures: PNG, PDF or SVG, by the ending of the name; and colours that the colour-blind tell apart."""

from pathlib import Path

from cycler import cycler
from matplotlib.figure import Figure

ENDINGS = (".png", ".pdf", ".svg")
"""What a picture's name may end with."""
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito, "Color universal design", 2008, without yellow, which paper swallows: for up to seven things."""
STYLES = cycler(linestyle=["-", "--", ":"]) * cycler(color=COLORS)
"""Of lines: seven colours, then dashed, then dotted."""


def save(figure: Figure, path: str | Path) -> Path:
    """Save a figure, as its name ends: ``.png`` (120 dots an inch), ``.pdf`` or ``.svg``; missing folders are created.

    Raises ValueError for another ending.
    """
    file = Path(path)
    if file.suffix.lower() not in ENDINGS:
        raise ValueError(f"path = {str(path)!r}: must end with {', '.join(ENDINGS)}, which says the kind of picture")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format=file.suffix[1:].lower(), dpi=120)
    return file
