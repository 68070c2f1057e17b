"""``python -m experiments.check my_algorithm.py [--json]``: the contract checks on a user's own file.

Checked are the objects that the file itself defines: subclasses of Flower's ``Strategy``, and functions marked
``@offer`` as a task, a partition or a model. Nothing is registered. Each check prints one line. Exit code 0 when all
checks hold, 1 when some fail, 2 for a file that cannot be checked. A strategy is checked with its defaults, and once
more for each other value of its ``Literal`` parameters.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from experiments.check.check_result import Result, results
from experiments.check.targets import loaded, offers
from experiments.command_ends import ended


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return 0
    try:
        paths = [argument for argument in arguments if argument != "--json"]
        if len(paths) != 1 or paths[0].startswith("-"):
            raise ValueError(f"{' '.join(paths) or 'no file'}: a call is python -m experiments.check FILE [--json]")
        with loaded(Path(paths[0])) as module:
            if not offers(module):
                needs = "a subclass of Strategy, or a function with @offer (task, partition, model), "
                needs += "that the file itself defines"
                raise ValueError(f"{paths[0]!r}: offers nothing to check; it needs {needs}")
            return report(paths[0], results(module), "--json" in arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report(file: str, found: Iterator[Result], as_json: bool) -> int:
    """Print each result when it is known, or all as JSON at the end; returns the exit code."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # Flower's strategies log every step
    torch.set_num_threads(1)
    done = []
    for result in found:
        done.append(result)
        if not as_json:
            print(result.line(), flush=True)
    failed = sum(bool(result.why) for result in done)
    if as_json:
        rows = [{**asdict(result), "ok": not result.why} for result in done]
        print(json.dumps({"file": file, "status": "failed" if failed else "ok", "failed": failed, "results": rows}))
    else:
        print(f"{len(done) - failed} of {len(done)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(ended(main))
