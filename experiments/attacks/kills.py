"""Kills runs at random moments, resumes them, and compares each with the same run undisturbed.

    python -m experiments.attacks.kills [--number 60] [--seed 0] [--tree CHECKOUT]

Every run is in a forked process, which gets SIGKILL at a moment drawn from the time that the run takes. The runs of
STORED keep their clients' states in segments; those with a checkpoint after each round are killed between the commit of
a round's states and the checkpoint that would name them. A run counts as equal if its model, its log without times and
its summary are. ``--tree`` attacks another checkout. Exit code 0 if all are equal, 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import run
from fl_sim import load, rng, tree
from fl_sim.logs.round_columns import MEASURED

FEW = "--model lr --clients 6 --cohort 4 --rounds 12 --block_size 2 --quiet --partition.held_out 0.2"
FEW += " --personalize_steps 1 --personalize_every 3"
STRATEGIES = ("fedavg", "fedprox", "maxpool", "reptile --strategy.anneal linear", "maml", "perfedavg")
FLOWERS = "flwr.serverapp.strategy:FedAdam"
RUNS = [f"--strategy {s} --engine {e} {FEW}" for s in (*STRATEGIES, FLOWERS) for e in ("loop", "vmap")]
"""The runs that are killed in turn, with checkpoints as they come by default, and after each round."""
STORED = [f"--strategy {s} --engine {e} {FEW}" for s in ("scaffold", "feddyn", "moon") for e in ("loop", "vmap")]
"""Those whose clients have states: killed like the others, but their states are in segments from the first on."""
TIMES = (*MEASURED, "run_dir", "versions")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.attacks.kills", description=__doc__)
    parser.add_argument("--number", type=int, default=60, help="of kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--tree", default="", help="another checkout to attack")
    options = parser.parse_args(argv)
    if options.tree:
        words = [sys.executable, "-P", __file__, "--number", str(options.number), "--seed", str(options.seed)]
        return subprocess.run(words, env={**os.environ, "PYTHONPATH": options.tree}, check=False).returncode
    equal, runs = 0, RUNS + STORED
    with tempfile.TemporaryDirectory() as name:
        whole: dict[str, tuple[float, Path]] = {}
        for number in range(options.number):
            words_of_run = runs[number % len(runs)] + " --checkpoint_every 1" * ((number + number // len(runs)) % 2)
            why = attack(words_of_run, number, options.seed, Path(name), whole)
            equal += not why
            print(f"{number + 1:3} {words_of_run.partition(' --model')[0]:60} {why or 'equal'}", flush=True)
    print(f"{equal} of {options.number} killed runs go on to the result of the run undisturbed")
    return 0 if equal == options.number else 1


def attack(words: str, number: int, seed: int, folder: Path, whole: dict[str, tuple[float, Path]]) -> str:
    """Kill one run and resume it; returns how it differs from the run undisturbed, or why it could not be resumed.

    ``whole``: the runs undisturbed so far, with the seconds that they took.
    """
    if words not in whole:
        out = folder / f"whole-{number}"
        if code := forked(words, out):
            return f"the run undisturbed: exit code {code}"
        whole[words] = time.time() - (only(out) / "config.toml").stat().st_mtime, only(out)
    seconds, complete = whole[words]
    out = folder / f"killed-{number}"
    for attempt in range(20):
        share = rng.key(seed, "kill", number, attempt) % 1000 / 1000
        between = words.startswith(tuple(STORED)) and "checkpoint_every" in words
        when: dict[str, Any] = {"at_commit": 1 + int(12 * share)} if between else {"kill_after_s": share * seconds}
        if forked(words, out, **when) == -signal.SIGKILL:
            break  # else it was faster: another moment is tried
        shutil.rmtree(out, ignore_errors=True)
    else:
        return "it was never killed while it ran"
    if code := forked(f"--resume {only(out)} --quiet", out):
        return f"--resume: exit code {code}"
    return difference(only(out), complete)


def forked(words: str, out: Path, kill_after_s: float | None = None, at_commit: int = 0) -> int:
    """Run a command in a forked process; returns its exit code, that of SIGKILL where it was killed.

    ``kill_after_s``: seconds from the moment at which it has a run folder. ``at_commit``: kill it when its states are
    on the disk for the checkpoint of this number, which is not written yet.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if words.startswith(tuple(STORED)) or list(out.glob("*/states")):
            store_states(at_commit)
        split = words.split()
        os._exit(run.main(split if "--resume" in split else [*split, "--out", str(out)]))
    if kill_after_s is not None:
        while not list(out.glob("*/config.toml")):
            time.sleep(0.001)
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def store_states(at_commit: int) -> None:
    """Store every state in segments, and die at a commit (0: never). Older versions have no segments."""
    with contextlib.suppress(ImportError):
        from fl_sim.states import client_states
        from fl_sim.states.stored_states import StoredStates

        sync, done = StoredStates.sync, list[int]()

        def committed(states: StoredStates) -> None:
            sync(states)
            done.append(1)
            if len(done) == at_commit:
                os.kill(os.getpid(), signal.SIGKILL)

        client_states.MEMORY_BYTES = 0
        StoredStates.sync = committed  # type: ignore[method-assign, assignment]


def only(folder: Path) -> Path:
    """The one run in a folder."""
    [found] = folder.iterdir()
    return found


def difference(a: Path, b: Path) -> str:
    """The first thing in which two runs differ, apart from times; empty where there is none."""
    for name in ("rounds", "clients", "events"):
        if lines(a / f"{name}.jsonl") != lines(b / f"{name}.jsonl"):
            return f"{name}.jsonl differs"
    one, other = (timeless(json.loads((run / "summary.json").read_text(encoding="utf-8"))) for run in (a, b))
    if one != other:
        return "summary.json differs"
    return "" if tree.digest(load(a).model()) == tree.digest(load(b).model()) else "the model differs"


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a log file without times, and without that of its resumption."""
    rows = [timeless(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row.get("event") != "resumed"]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what depends on the clock or on the folder."""
    return {key: value for key, value in row.items() if key not in TIMES}


if __name__ == "__main__":
    sys.exit(main())
