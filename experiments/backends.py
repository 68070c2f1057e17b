"""``python -m experiments.backends [RECIPE] [--key value ...]``: the same runs on each backend, compared.

The backends are the engines of this project, Flower's own simulation, and a real deployment: a SuperLink with one
SuperNode for each client, over TLS with node keys. Each is started by the same command that a user would type. The
table is written to ``experiments/results/backends.md``; the run folders are kept, and named, where backends differ.
Exit codes: 0 where all backends agree, 1 where one fails or differs,
2 for ``--out`` or ``--engine``, which the command sets itself.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

import fl_sim
from experiments.command_ends import ended
from experiments.config.command_line import parse
from experiments.deploy.server_app import DEFAULT, deployable
from experiments.installation import child_environment
from experiments.provenance import origin
from fl_sim import registry
from fl_sim.logs.round_columns import MEASURED, VIRTUAL

RUN = "-m experiments.run {arguments}"
BACKENDS = {
    "loop": f"{RUN} --engine loop",
    "vmap": f"{RUN} --engine vmap",
    "ray": f"{RUN} --engine ray --ray.num_workers 2 --ray.engine loop",
    "Flower's simulation": f"{RUN} --engine flower",
    "devices": "-m experiments.deploy up --tls --auth --recipe {arguments}",
}
"""Python's arguments for each backend; the first one is the reference for the others."""
TABLE = Path("experiments/results/backends.md")
"""The file to write, relative to the folder in which the command runs, so that tests do not write into the checkout."""
CLOSE = 1e-5
"""Largest absolute difference of a weight that counts as rounding between two engines."""
MACHINE_COLUMNS = (*MEASURED, "node", "device", *VIRTUAL)
"""Columns of the logs that depend on the machine, or that real devices lack, and are not compared."""
HEAD = """# The same runs on each backend

Of each backend, against `loop`: whether the model has the same bits after each round and the logs the same rows
but for times; else the largest difference of any weight of the last model.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return 0
    if any(word.partition("=")[0] in ("--out", "--engine") for word in arguments):
        print("error: --out, --engine: each backend has its own; leave them out", file=sys.stderr)
        return 2
    if not arguments or arguments[0].startswith("--"):
        arguments = [DEFAULT, *arguments]
    try:
        if "--strategy" not in arguments:
            arguments += ["--strategy", ",".join(possible(arguments))]
        parse(arguments)  # an error is reported before the first backend starts
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    times: list[str] = []
    runs: dict[str, dict[str, Path]] = {}
    folder = Path(tempfile.mkdtemp(prefix="fl-sim-backends-"))
    for name, backend in BACKENDS.items():
        command = f"python {backend.format(arguments=shlex.join(arguments))}"
        out, start = folder / name, time.monotonic()
        print(f"{name}: {command}", flush=True)
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:], "--out", str(out)],
            env=os.environ | child_environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}", file=sys.stderr)
            return 1
        times.append(f"{time.monotonic() - start:5.0f} s  {command}")
        runs[name] = by_strategy(out)
    table, agree = comparison(runs)
    text = "\n".join(
        [HEAD, *table, "", "Wall time, start-up included, and commands:", "", "```", *times, "```", "", about(runs)]
    )
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(f"{text}\n", encoding="utf-8")
    print(f"{text}\n")
    if agree:
        shutil.rmtree(folder)
    else:
        print(f"the run folders are in {folder}", file=sys.stderr)
    return 0 if agree else 1


def possible(arguments: Sequence[str]) -> list[str]:
    """The strategies that these runs can have on every backend; says of the others why not.

    Raises what is wrong with the first strategy where that is wrong with each.
    """
    found, reasons = list[str](), dict[str, ValueError]()
    for name in registry.names("strategies", "strategy"):
        try:
            for config in parse([*arguments, "--strategy", name]).configs:
                deployable(config)
            found.append(name)
        except ValueError as error:
            reasons[name] = error
    if not found:
        raise next(iter(reasons.values()))
    for name, reason in reasons.items():
        print(f"without {name}: {reason}")
    return found


def by_strategy(out: Path) -> dict[str, Path]:
    """The finished runs below ``out``: name of the strategy -> run folder."""
    folders = [file.parent for file in out.glob("*/summary.json")]
    return {fl_sim.load(folder).config["strategy"]["name"]: folder for folder in folders}


def about(runs: Mapping[str, Mapping[str, Path]]) -> str:
    """Where the compared runs come from, given by backend and strategy."""
    return origin([fl_sim.load(folder) for folders in runs.values() for folder in folders.values()], "nothing")


def comparison(runs: Mapping[str, Mapping[str, Path]]) -> tuple[list[str], bool]:
    """Compare run folders, given by backend and strategy.

    Returns
    -------
    tuple of (list of str, bool)
        Lines of a Markdown table with a row for each strategy, and whether all backends agree with the first.
    """
    first, *others = runs
    lines = ["| " + " | ".join(["strategy", f"{first}: digest", *others]) + " |", "|---" * (len(runs) + 1) + "|"]
    agree = True
    for strategy, folder in sorted(runs[first].items()):
        cells = [strategy, f"`{fl_sim.load(folder).summary['digest'][:12]}`"]
        for name in others:
            text, good = difference(folder, runs[name][strategy], name == "vmap")
            agree &= good
            cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    return lines, agree


def difference(a: Path, b: Path, rounded: bool) -> tuple[str, bool]:
    """Compare two runs.

    Parameters
    ----------
    a, b : Path
        Run folders.
    rounded : bool
        Whether another engine computed ``b``, which may differ by rounding.

    Returns
    -------
    tuple of (str, bool)
        The difference in words, and whether it is allowed.
    """
    logs = [fl_sim.load(folder) for folder in (a, b)]
    digests = [list(log.rounds["digest"]) for log in logs]
    if digests[0] == digests[1] and rounded:
        return "same bits", True
    if digests[0] == digests[1]:
        tables = [[rows(frame) for frame in (log.rounds, log.clients)] for log in logs]
        return ("same bits, same rows", True) if tables[0] == tables[1] else ("same bits, other rows", False)
    models = [load_file(folder / "model.safetensors") for folder in (a, b)]
    apart = max(float((models[0][k] - models[1][k]).abs().max()) for k in models[0])
    return f"{apart:.0e}", rounded and apart < CLOSE


def rows(frame: pd.DataFrame) -> str:
    """A table of a round log as text, without ``MACHINE_COLUMNS``."""
    kept = frame.drop(columns=[name for name in MACHINE_COLUMNS if name in frame])
    return str(kept[sorted(kept, key=str)].to_csv(index=False))


if __name__ == "__main__":
    sys.exit(ended(main))
