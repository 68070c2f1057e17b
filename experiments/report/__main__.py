"""``python -m experiments.report RUN [RUN ...] [--out report.html] [--title TEXT]``: one page that shows runs.

Exit codes: 0; 1 for a full disk; 2 for bad input.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from experiments.command_ends import Arguments, ended, is_full
from fl_sim.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    parser = Arguments(
        prog="python -m experiments.report",
        description="Write one HTML page that shows runs: curves, tables, settings, partitions, failures. It needs no "
        "network.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs at any depth")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="(default: report.html)")
    parser.add_argument("--title", default="", help="the page's title (default: the names of the runs)")
    options = parser.parse_args(arguments)
    try:
        print(report(options.runs, options.out, options.title))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full(error) else 2
    return 0


def report(runs: Sequence[str | Path], out: str | Path = "report.html", title: str = "") -> str:
    """Write the page of ``runs`` to ``out``; returns a line that says what is where.

    Parameters
    ----------
    runs : sequence of str or Path
        Run folders, or folders of runs at any depth.
    out : str or Path
        The file, ``*.html``; a file that is there is replaced, missing folders are created.
    title : str
        Default: the names of ``runs``.

    Raises
    ------
    ValueError
        For a path that is no run and holds none, runs of which none can be read, and another ending of ``out``.
    ConfigError
        Where plotly is not installed.
    """
    from experiments.report.content import content
    from experiments.report.found_runs import folders, read_runs
    from experiments.report.html_page import html_page

    file = Path(out)
    if file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out = {str(out)!r}: must end with .html; the page is an HTML file")
    if file.is_dir():
        raise ConfigError(f"out = {str(out)!r}: is a folder; name a file, such as {str(file / 'report.html')!r}")
    found = read_runs(folders(runs))
    if not found.found:
        raise ValueError("; ".join(found.notes))
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    names = [one.name for one in found.found]
    page = html_page(title or (names[0] if len(names) == 1 else f"{len(names)} runs"), content(found))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8", newline="\n")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{len(names)} run{'s' * (len(names) > 1)}, {file.stat().st_size / 1e6:.1f} MB: {file}"


if __name__ == "__main__":
    sys.exit(ended(main))
