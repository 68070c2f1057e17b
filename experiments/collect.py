"""``python -m experiments.collect NAME RUN [RUN ...]``: keep a study's table and curves.

Writes NAME.csv, NAME.md (table, command; commit, machine, seeds and versions of the runs; what was tuned on what) and
NAME.png (curves) in ``experiments/results``, from the logs of the runs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.analysis.compare import compare
from experiments.analysis.curves import curves
from experiments.analysis.frames import read
from experiments.analysis.text_table import format_table
from experiments.command_ends import Arguments, ended
from experiments.provenance import origin

RESULTS = Path(__file__).parent / "results"
"""Folder of published results."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 for bad input."""
    parser = Arguments(prog="python -m experiments.collect", description=__doc__)
    parser.add_argument("name", help="the files' name, without ending")
    parser.add_argument("runs", nargs="+", help="run folders, or folders of them")
    parser.add_argument(
        "--tuned", required=True, help="what was tuned on what: 'nothing', or 'lr of 3 on the validation share'"
    )
    parser.add_argument("--command", default="", help="the command that made the runs, for the record")
    parser.add_argument("--note", default="", help="a sentence for readers of the table")
    options = parser.parse_args(argv)
    try:
        if options.name != Path(options.name).name or options.name.startswith("."):
            raise ValueError(f"name = {options.name!r}: a study's files lie in {RESULTS}; give a name without a folder")
        logs = read(*options.runs)
        frame, about = compare(logs), origin(logs, options.tuned)
        curves(logs, RESULTS / f"{options.name}.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    frame.to_csv(RESULTS / f"{options.name}.csv", index=False)
    table = format_table(frame, width=None)
    footer = f"{about} Seconds are of a shared machine. {options.note}".rstrip()
    text = f"# {options.name}\n\n```\n{options.command}\n```\n\n```\n{table}\n```\n\n{footer}\n"
    (RESULTS / f"{options.name}.md").write_text(text, encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
