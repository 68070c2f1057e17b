"""``python -m experiments.analysis RUN [RUN ...] [--target 0.8] [--png PATH] [--axis virtual_time]``: compare runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.frames import read
from experiments.analysis.text_table import format_table
from experiments.command_ends import Arguments, ended


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 for bad input."""
    parser = Arguments(prog="python -m experiments.analysis", description="Compare runs by their round logs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of such folders")
    parser.add_argument(
        "--target", type=float, help="accuracy, a fraction: rounds to it (default: the runs' own target)"
    )
    parser.add_argument(
        "--png", type=Path, metavar="PATH", help="draw the curves into this file, *.png, *.pdf or *.svg"
    )
    parser.add_argument("--axis", default="round", help="of the curves: round, seconds, virtual_time or bytes")
    parser.add_argument("--band", default="range", help="over seeds: range, or interval (95 %%, of the mean)")
    options = parser.parse_args(arguments)
    try:
        if options.target is not None and not 0 < options.target <= 1:
            raise ValueError(f"target = {options.target!r}: is an accuracy, a fraction above 0 and at most 1")
        logs = read(*options.runs)
        print(format_table(compare(logs, options.target)))
        if options.png:
            from experiments.analysis.curves import curves  # imported here, because matplotlib takes long to load

            curves(logs, options.png, axis=options.axis, band=options.band)
            print(options.png)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
