"""``python -m experiments.timeline RUN [--out FILE.png|pdf|svg]``: a picture of what a run's devices did when.

Devices are rows; download, work and upload have different colours, work that is not used is hatched, waiting is grey,
and a line shows where a round ends (or the server takes a step). Drawn from the run's logged rows alone. Exit codes: 2
for bad input.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from experiments.command_ends import Arguments, ended, is_full
from fl_sim.logs.reader import load

FORMATS = (".png", ".pdf", ".svg")
"""Endings of files that can be drawn."""
BARS = 16
"""Launches of a device, or rounds, that are shown where no end is given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, 1 for a full disk, or 2 for bad input."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    parser = Arguments(
        prog="python -m experiments.timeline", description="Draw what a run's devices did in virtual time."
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="*.png, *.pdf or *.svg (default: RUN/timeline.png)")
    parser.add_argument("--devices", type=int, default=200, metavar="N", help="draw the busiest N devices (200)")
    parser.add_argument("--from", type=float, default=0.0, metavar="S", dest="begin", help="from this virtual time on")
    parser.add_argument(
        "--until", type=float, metavar="S", help=f"until then (default: the end, or after {BARS} rounds or launches)"
    )
    options = parser.parse_args(arguments)
    try:
        print(picture(Path(options.run), options.out, options.devices, options.begin, options.until))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full(error) else 2
    return 0


def picture(run: Path, out: Path | None, devices: int = 200, begin: float = 0.0, until: float | None = None) -> str:
    """Draw a run's timeline; returns a line that says what is shown, and where.

    Raises
    ------
    ValueError
        For a folder that holds no run, a run without virtual time, a file of another kind, and numbers that show
        nothing.
    """
    from experiments.timeline.drawing import draw  # imported here, because matplotlib takes long to load
    from experiments.timeline.launches import timeline, window

    file = out if out is not None else run / "timeline.png"
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"out = {str(file)!r}: must be a file *.png, *.pdf or *.svg")
    if devices < 1:
        raise ValueError(f"devices = {devices}: draw at least one")
    if not begin >= 0 or (until is not None and not until > begin):
        raise ValueError(f"from = {begin:g}, until = {until}: must be virtual seconds, from 0 on, the second later")
    log = load(run)
    found = timeline(log)
    title = f"{log.config['strategy']['name']}, {log.config.get('profile', {}).get('name', 'equal')}"
    return f"{draw(found, window(found, begin, until, BARS), devices, file, title)}: {file}"


if __name__ == "__main__":
    sys.exit(ended(main))
