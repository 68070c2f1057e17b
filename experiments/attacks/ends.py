"""Ends runs in every way in which one may end, and checks the exit code, the summary and what is left.

    python -m experiments.attacks.ends [--only PATTERN] [--tree CHECKOUT]

Each attack is a command in a process of its own. It holds where the exit code is the documented one, stderr has no
traceback, the summary says how the run ended, the last finished round has a checkpoint, and no process is left.
``--tree`` attacks another checkout. Exit code 0 if all hold, 1 otherwise. Needs /proc (Linux); takes some minutes.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiments
from experiments.attacks.end_cases import ATTACKS, STRATEGIES, Attack

MARK = "FL_SIM_ATTACK"
"""The environment variable by which processes that are left are found."""
PATIENCE_S = 200.0
"""Seconds after which a run that does not end has failed the check."""


@dataclass
class Ended:
    """How a command ended."""

    code: int | None
    err: str
    folder: Path | None
    left: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.attacks.ends", description=__doc__)
    parser.add_argument("--only", default="", help="attacks whose name this pattern finds")
    here = Path(experiments.__file__).parents[1]
    parser.add_argument("--tree", type=Path, default=here, help="another checkout to attack")
    options = parser.parse_args(argv)
    chosen = [attack for attack in ATTACKS if re.search(options.only, attack.name)]
    held = 0
    for attack in chosen:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "attackers.py").write_text(STRATEGIES, encoding="utf-8")
            why = problem(attack, ended(attack, Path(name), options.tree.resolve()))
        held += not why
        print(f"{attack.name:50} {why or 'holds'}", flush=True)
    print(f"{held} of {len(chosen)} ends are as documented")
    return 0 if held == len(chosen) else 1


def ended(attack: Attack, folder: Path, tree: Path) -> Ended:
    """Run the command of an attack to its end, and do to it what the attack does."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, "PYTHONPATH": str(tree), MARK: mark, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "experiments.run", *attack.words.split(), "--out", "runs"]

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if attack.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (attack.file_bytes, attack.file_bytes))

    with (folder / "stderr").open("w+", encoding="utf-8") as err, open(attack.stdout, "w", encoding="utf-8") as out:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=err, preexec_fn=prepare)
        try:
            act(attack, process, folder, mark)
            code: int | None = process.wait(PATIENCE_S)
        except (subprocess.TimeoutExpired, TimeoutError):
            code = None
    time.sleep(attack.wait_s)
    found = sorted(folder.glob("runs/*/config.toml"))
    left = marked(mark)
    for number in left:
        os.kill(number, signal.SIGKILL)
    text = (folder / "stderr").read_text(encoding="utf-8")
    return Ended(code, text, found[0].parent if found else None, list(left.values()))


def act(attack: Attack, process: "subprocess.Popen[bytes]", folder: Path, mark: str) -> None:
    """Send a signal to the command, or to a process of Ray that it has started, once it is as far as it should be."""
    if not attack.signal:
        return
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and not reached(attack.at, folder):
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)
    if not attack.to:
        process.send_signal(attack.signal)
        return
    for number, title in marked(mark).items():
        if attack.to in title and number != process.pid:
            os.kill(number, attack.signal)
            return


def reached(at: str, folder: Path) -> bool:
    """Whether a run is as far as ``at`` says: ``round N``, or ``file NAME``; "" stands for half a second."""
    kind, _, what = at.partition(" ")
    if kind == "round":
        logs = folder.glob("runs/*/rounds.jsonl")
        return any(len(log.read_bytes().splitlines()) > int(what) for log in logs)
    if kind == "file":
        return (folder / what).exists()
    time.sleep(0.5)
    return True


def problem(attack: Attack, end: Ended) -> str:
    """Why the end of a run is not as documented; empty where it is."""
    if end.code != attack.code:
        return f"exit code {end.code}, not {attack.code}" if end.code is not None else "does not end"
    if "Traceback" in end.err and not attack.own_code:
        return "a traceback"
    if end.left:
        return f"left: {', '.join(end.left)[:100]}"
    if not attack.status:
        return ""
    summary = end.folder / "summary.json" if end.folder else None
    if summary is None or end.folder is None or not summary.is_file():
        return "no summary"
    told: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    if told["status"] != attack.status:
        return f"status {told['status']}, not {attack.status}"
    events = (end.folder / "events.jsonl").read_text(encoding="utf-8")
    if attack.event and f'"{attack.event}"' not in events:
        return f"no event {attack.event}"
    rounds = [int(path.name.split("-")[1]) for path in end.folder.glob("checkpoints/round-*")]
    lost = told["rounds"] - max(rounds, default=0)
    return f"{lost} finished rounds lost" if lost > attack.may_lose else ""


def marked(mark: str) -> dict[int, str]:
    """Process id -> title of the processes that an attacked command has started, itself among them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
        except OSError:  # it has ended, or is another user's
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
