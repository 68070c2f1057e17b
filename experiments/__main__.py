"""The console script ``fl-sim COMMAND ...``: ``python -m experiments.COMMAND ...`` from any folder, same exit codes.

Python puts the current folder first on ``sys.path`` for ``python -m``, but not for a console script. A user's own
``experiments`` folder or ``strategies.py`` there cannot take the place of this project's packages. A component that is
named as ``package.module:Name`` is found in the current folder nevertheless: ``fl_sim.registry.find`` searches it last.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence

from experiments.installation import ROOT, version

COMMANDS = {
    "run": "run a recipe, with settings from the command line; resume a run; run a Flower app",
    "sweep": "runs at all combinations of settings, or at those that a search tries; goes on after a kill",
    "list": "list tasks, partitions, models, strategies and recipes",
    "partition": "look at a partition of a data set before training on it",
    "check": "run the contract checks on a file with your own strategy, task, partition or model",
    "adapt": "adapt a run's model to tasks and clients that it has never seen, and measure it",
    "replay": "compute again what one client did in one round of a run",
    "analysis": "compare runs by their round logs",
    "report": "write one HTML page that shows runs: curves, tables, settings, partitions, failures",
    "watch": "show runs in the browser while they go on",
    "timeline": "draw what a run's devices did in virtual time",
    "backends": "make the same runs on every backend, and compare their bits",
    "deploy": "run on real Flower SuperLinks and SuperNodes; print the commands for named hosts; make keys",
    "bench": "measure this simulator and others on the same work",
    "collect": "keep the table and the curves of a study",
}
"""What each command does, by its name. The command NAME is the module ``experiments.NAME``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The command and its arguments (default: those of this process).

    Returns
    -------
    int
        The exit code: 0 for help and version, 2 for an unknown command.

    Raises
    ------
    SystemExit
        With the exit code of the command that was run.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else "--help"
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command in ("-V", "--version"):
        print(f"fl-sim {version(f'(not installed; a checkout in {ROOT})')}")
    elif command in COMMANDS:
        before = sys.argv
        sys.argv = [f"fl-sim {command}", *words[1:]]
        try:
            runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
        finally:
            sys.argv = before
    else:
        close = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        print(f"error: {command!r}: unknown{hint}; choose one of {', '.join(COMMANDS)}, or --help", file=sys.stderr)
        return 2
    return 0


def usage() -> str:
    """The text of ``--help``, with one line for each command."""
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fl-sim COMMAND [ARGUMENT ...]",
            "       fl-sim COMMAND --help",
            "       fl-sim --version",
            "",
            "Each command is python -m experiments.COMMAND, from any folder:",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
