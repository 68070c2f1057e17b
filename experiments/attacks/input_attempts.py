"""Tries bad inputs that a JSON file lists, each in a forked process: a script for the modules of any version.

    python -P input_attempts.py FILE

The file holds ``{"preamble": lines, "seconds": limit, "gigabytes": limit, "inputs": [[words, code], ...]}``. Prints one
line of JSON for each input: how it ended (``code``: the exit code, minus a signal's number, or null where it did not
end), ``raised`` (the class of an error of Python code, and its bases), ``err`` (stderr), ``made`` (whether a run folder
with a trained round exists).
"""

import importlib
import json
import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import time
import traceback
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

UNPREPARED = 98
"""The exit code where the preparations of an attempt fail."""
MARK = "FL_SIM_ATTACK"
"""The environment variable by which processes that are left are found."""
MOST = 20_000
"""Characters of stderr that are kept, from its end."""


def main(file: str) -> None:
    """Try all inputs of a file."""
    given = json.loads(Path(file).read_text(encoding="utf-8"))
    for name in ("experiments.run", "flwr.serverapp.strategy", "sklearn.datasets", "pandas", "PIL.Image"):
        importlib.import_module(name)  # once, and not in each forked process
    for words, code in given["inputs"]:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(tried(words, given["preamble"], code, Path(name), given)), flush=True)


def tried(words: str, preamble: str, code: str, folder: Path, limits: dict[str, Any]) -> dict[str, Any]:
    """How one input ends."""
    sys.stdout.flush()
    mark = uuid.uuid4().hex
    child = os.fork()
    if child == 0:
        os.environ[MARK] = mark
        attempt(words, preamble, code, folder, limits["gigabytes"])
    until, status = time.monotonic() + limits["seconds"], None
    while status is None and time.monotonic() < until:
        pid, found = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(found) if pid else None
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if re.match(r"deploy|.*--engine (ray|flower)", words):  # these start processes of their own
        end_marked(mark)
    if status is None:
        os.waitpid(child, 0)
    read = {
        name: (folder / name).read_text(errors="replace") if (folder / name).exists() else ""
        for name in ("err", "raised")
    }
    made = any(len(log.read_bytes().splitlines()) > 1 for log in folder.glob("runs/*/rounds.jsonl"))
    return {"code": status, "err": read["err"][-MOST:], "raised": read["raised"], "made": made}


def end_marked(mark: str) -> None:
    """End the processes that an attempt has started and left, found by a variable in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def attempt(words: str, preamble: str, code: str, folder: Path, gigabytes: float) -> None:
    """The forked process: runs the code, then the command, and ends with its exit code."""
    status = 99
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.environ["FL_SIM_CACHE"] = str(folder / "cache")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(gigabytes * 2**30),) * 2)
        names: dict[str, Any] = {"__name__": "attack"}
        try:
            exec(preamble, names)
            if words:
                exec(code, names)
        except BaseException:
            status = UNPREPARED
            traceback.print_exc()
            os._exit(status)
        try:
            if not words:
                exec(code, names)
        except BaseException as error:
            (folder / "raised").write_text(" ".join(cls.__name__ for cls in type(error).__mro__))
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 2
        else:
            status = 0
        if words:
            module, *rest = shlex.split(words.format(r=names.get("r", "")) if "{r}" in words else words)
            sys.argv = [module, *rest]
            try:
                status = int(importlib.import_module(entry(module)).main(rest) or 0)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def entry(module: str) -> str:
    """The module with the function ``main`` of a command."""
    name = f"experiments.{module}"
    return f"{name}.__main__" if hasattr(importlib.import_module(name), "__path__") else name


if __name__ == "__main__":
    main(sys.argv[1])
