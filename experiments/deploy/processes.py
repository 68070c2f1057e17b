"""Child processes that end when their owner ends.

Processes that Flower's processes start may leave the process group, and then outlive their parents. But all inherit the
environment: each deployment adds a variable with a value of its own, and ends every process that has it. If the owner
itself is killed, a guardian process does so. Where there is no /proc (systems other than Linux) only process groups are
ended, and there is no guardian.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "FL_SIM_DEPLOYMENT"
"""The environment variable whose value identifies a deployment."""
PROC = Path("/proc")
"""Folder with the environment of each process, on Linux."""

_GUARDIAN = """
import os, signal, sys, time
owner, mark = int(sys.argv[1]), sys.argv[2].encode()
signal.signal(signal.SIGINT, signal.SIG_IGN)
while os.getppid() == owner:
    time.sleep(0.5)
for number in (signal.SIGTERM, signal.SIGKILL):
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(bytes(1)):
                    os.kill(int(name), number)
        except OSError:
            pass
    time.sleep(3)
"""


class Processes:
    """A context manager that on leaving ends the processes that it started, and the ones that these started.

    Parameters
    ----------
    logs : Path
        Folder for the output of each process, ``NAME.log``.
    env : Mapping
        Environment of the processes.
    """

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self.logs, self.mark = logs, uuid.uuid4().hex
        self.env = {**env, MARK: self.mark}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._plain = dict(env)

    def start(self, name: str, command: Sequence[str], cwd: Path, **env: str) -> "subprocess.Popen[bytes]":
        """Start a process; its output is appended to ``NAME.log``, and ``env`` is added to its environment."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.env | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[name] = process
        return process

    def dead(self) -> dict[str, int]:
        """Exit codes of the processes that have ended, by name."""
        return {name: process.returncode for name, process in self.running.items() if process.poll() is not None}

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's output."""
        file = self.logs / f"{name}.log"
        return (
            "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if file.exists() else ""
        )

    def stop(self, patience_s: float = 5.0) -> None:
        """End all processes: by SIGTERM, and after ``patience_s`` seconds by SIGKILL. A second call has no effect."""
        for number, least_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 2.0)):
            if not PROC.exists():
                for process in self.running.values():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, number)
            for pid in marked(self.mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + least_s
            while time.monotonic() < end and (len(self.dead()) < len(self.running) or marked(self.mark)):
                time.sleep(0.05)
        self.running.clear()

    def __enter__(self) -> Self:
        if PROC.exists():
            command = [sys.executable, "-I", "-S", "-c", _GUARDIAN, str(os.getpid()), f"{MARK}={self.mark}"]
            self._guardian = subprocess.Popen(command, env=self._plain, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._guardian is not None:
            self._guardian.kill()
            self._guardian.wait()


def marked(mark: str) -> list[int]:
    """Ids of running processes whose environment has the mark; none without /proc. Zombies have no environment."""
    found, variable = [], f"{MARK}={mark}".encode()
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if variable in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
