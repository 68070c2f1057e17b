"""Tries bad inputs: flags, recipes, data, models, losses, files, and what other commands read; how are they refused?

    python -m experiments.attacks.inputs [--only PATTERN] [--tree CHECKOUT] [--show]

Each input is tried in a forked process. It is *refused* where the exit code is 2 (from Python: a ValueError), and
the error is one line that names the key or the file, and the value or the place, before a round was trained. All else
is a fault: a traceback, another exit code, a value that is accepted in silence, a process that does not end or takes
all memory, an error that does not say what is wrong. ``--tree`` attacks another checkout. Prints the faults and a table
of counts; exit code 0 if there are no faults, 1 otherwise. Takes some minutes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import experiments
from experiments.attacks import input_attempts
from experiments.attacks.input_cases import PREAMBLE, Input
from experiments.attacks.input_settings import catalogue

SECONDS, GIGABYTES = 60.0, 6.0
"""Limits of one attempt."""
VERDICTS = (
    "refused",
    "accepted in silence",
    "a traceback",
    "no end",
    "another exit code",
    "does not say what is wrong",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.attacks.inputs", description=__doc__)
    parser.add_argument("--only", default="", help="inputs whose name this pattern finds")
    here = Path(experiments.__file__).parents[1]
    parser.add_argument("--tree", type=Path, default=here, help="another checkout to attack")
    parser.add_argument("--show", action="store_true", help="print what was said to every input")
    options = parser.parse_args(argv)
    chosen = [one for one in catalogue() if re.search(options.only, one.name)]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        given = {"preamble": PREAMBLE, "seconds": SECONDS, "gigabytes": GIGABYTES}
        file = Path(name) / "inputs.json"
        file.write_text(json.dumps({**given, "inputs": [[one.words, one.code] for one in chosen]}), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(options.tree.resolve()), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-P", input_attempts.__file__, str(file)]
        with subprocess.Popen(words, env=environment, cwd=name, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for one, line in zip(chosen, process.stdout, strict=False):
                end = json.loads(line)
                if end["code"] == input_attempts.UNPREPARED:
                    raise SystemExit(f"{one.name}: cannot be tried on {options.tree}: {end['err']}")
                found = verdict(one, end)
                counts[found] += 1
                if found != "refused" or options.show:
                    print(f"{one.name:60} {found}: {said(end)}", flush=True)
    for found in VERDICTS:
        print(f"{counts[found]:5} {found}")
    print(f"{counts['refused']} of {len(chosen)} bad inputs are refused")
    return 0 if counts["refused"] == len(chosen) else 1


def verdict(one: Input, end: dict[str, Any]) -> str:
    """One of ``VERDICTS``."""
    err, code = end["err"], end["code"]
    told = re.search(one.says, err, re.DOTALL) is not None
    if code is None or code < 0:
        return "no end"
    if "Traceback" in err or (code == 2 and not one.words and "ValueError" not in end["raised"].split()):
        return "a traceback"
    if code == 0:
        return "refused" if one.noted and told else "accepted in silence"
    if code != 2 or end["made"]:
        return "another exit code"
    return "refused" if told and len(lines(err)) == 1 else "does not say what is wrong"


def lines(err: str) -> list[str]:
    """The lines of an error, without warnings and notes."""
    without = re.sub(r"(?m)^.*Warning: .*\n(  .*\n)*", "", err)
    return [line for line in without.splitlines() if line.strip() and not re.match(r"(warning|note): ", line)]


def said(end: dict[str, Any]) -> str:
    """The last line of what was said, in at most 200 characters."""
    last = (lines(end["err"]) or end["err"].splitlines() or [""])[-1]
    return f"[{end['code']}] {last[:200]}"


if __name__ == "__main__":
    sys.exit(main())
