"""Processes that end with their owner. No paper.

Those that Flower's processes start are not all in their groups, and outlive them when these are killed; what all of them
inherit is the environment. So each deployment puts a mark of its own there, and ends what carries it. Should the owner
itself be killed, a guardian does it. Without /proc (other systems than Linux) only process groups are ended, and there is no guardian.
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
"""The variable whose value names a deployment."""
PROC = Path("/proc")

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
    """A context manager: on leaving, all that it started are ended, with all that these started.

    Parameters
    ----------
    logs : Path
        Folder for what each process prints: ``NAME.log``.
    env : Mapping
        Their environment.
    """

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self.logs, self.mark = logs, uuid.uuid4().hex
        self.env = {**env, MARK: self.mark}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._plain = dict(env)

    def start(self, name: str, command: Sequence[str], cwd: Path, **env: str) -> "subprocess.Popen[bytes]":
        """Start one; its output goes to ``NAME.log``."""
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
        """Exit codes of those that have ended, by name."""
        return {name: process.returncode for name, process in self.running.items() if process.poll() is not None}

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of what a process printed."""
        file = self.logs / f"{name}.log"
        return (
            "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if file.exists() else ""
        )

    def stop(self, patience_s: float = 5.0) -> None:
        """End all: asked at first, after ``patience_s`` made to. A second call finds nothing to do."""
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
    """Processes that run and carry a mark; none where there is no /proc. Zombies have no environment, so they do not count."""
    found, wanted = [], f"{MARK}={mark}".encode()
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
