"""``python -m experiments.backends [RECIPE] [--key value ...]``: the same runs on each backend, and whether they are the same. No paper.

The engines here, Flower's own simulation, and a SuperLink with a SuperNode a client over TLS with node keys, each by the command
that a user types. Writes ``experiments/results/backends.md``. Exit codes: 0 where all agree, 1 where one fails or differs.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

import fl_sim
from experiments.collect import RESULTS
from experiments.deploy.server_app import DEFAULT
from experiments.installation import child_environment
from experiments.provenance import commit
from fl_sim import registry
from fl_sim.logs.writer import versions

RUN = "-m experiments.run {words}"
BACKENDS = {
    "loop": f"{RUN} --engine loop",
    "vmap": f"{RUN} --engine vmap",
    "ray": f"{RUN} --engine ray --ray.num_workers 2 --ray.engine loop",
    "Flower's simulation": f"{RUN} --engine flower",
    "devices": "-m experiments.deploy up --tls --auth --recipe {words}",
}
"""Python's arguments for each backend; the first is what the others are compared with."""
TABLE = Path("experiments/results/backends.md")
"""Below the folder where the command runs: a test of it leaves the checkout alone."""
CLOSE = 1e-5
"""By how much a weight may differ where another engine computes."""
OF_THE_MACHINE = ("time", "seconds", "evaluate_seconds", "worker", "node", "device")
"""Columns of a log that say when and where."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    words = given if given and not given[0].startswith("--") else [DEFAULT, *given]
    if "--strategy" not in words:
        words += ["--strategy", ",".join(registry.names("strategies", "strategy"))]
    said, made = [], dict[str, dict[str, Path]]()
    for name, backend in BACKENDS.items():
        command = f"python {backend.format(words=shlex.join(words))}"
        out, start = tempfile.mkdtemp(prefix="fl-sim-backend-"), time.monotonic()
        print(f"{name}: {command}", flush=True)
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:], "--out", out],
            env=os.environ | child_environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}", file=sys.stderr)
            return 1
        said.append(f"{time.monotonic() - start:5.0f} s  {command}")
        made[name] = {
            fl_sim.load(file.parent).config["strategy"]["name"]: file.parent
            for file in Path(out).glob("*/summary.json")
        }
    table, agree = compared(made)
    head = "# The same runs on each backend\n\nOf each backend, against `loop`: whether the model has the same bits after each"
    head += " round and the logs the same rows\nbut for times; else the largest difference of any weight of the last model.\n"
    about = f"Commit {commit(RESULTS)}; " + ", ".join(
        f"{name} {version}" for name, version in versions().items() if version
    )
    text = "\n".join(
        [head, *table, "", "Wall time, start-up included, and commands:", "", "```", *said, "```", "", f"{about}.", ""]
    )
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(text, encoding="utf-8")
    print(text)
    return 0 if agree else 1


def compared(made: Mapping[str, Mapping[str, Path]]) -> tuple[list[str], bool]:
    """(lines of a table, whether all agree) of run folders by backend and strategy."""
    first, *others = made
    lines = ["| " + " | ".join(["strategy", f"{first}: digest", *others]) + " |", "|---" * (len(made) + 1) + "|"]
    agree = True
    for strategy, folder in sorted(made[first].items()):
        cells = [strategy, f"`{fl_sim.load(folder).summary['digest'][:12]}`"]
        for name in others:
            told, good = difference(folder, made[name][strategy], name == "vmap")
            agree &= good
            cells.append(told)
        lines.append("| " + " | ".join(cells) + " |")
    return lines, agree


def difference(a: Path, b: Path, rounded: bool) -> tuple[str, bool]:
    """(what to say of two runs, whether they agree); ``rounded`` : by another engine, which rounds otherwise."""
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
    """A table of a round log as text, less what depends on the machine."""
    kept = frame.drop(columns=[name for name in OF_THE_MACHINE if name in frame])
    return str(kept[sorted(kept, key=str)].to_csv(index=False))


if __name__ == "__main__":
    sys.exit(main())
