"""The parent's end: a system as a child process that does one round a go, and waits frozen in between. No paper."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bench.children import process_tree
from experiments.bench.children.system import System
from experiments.installation import child_environment

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Taken out of the environment: each system says itself how many threads it wants."""
EVERY_S, LOOK_SHARE = 0.25, 0.05
"""How often memory is looked at, outside of timed rounds; less often where looking would take more than that share of the time."""


class Stopped(Exception):
    """A child that gave no answer: ``status`` is unavailable or failed, the text is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Child:
    """One system at work. ``ask`` is the only way to make it do something."""

    system: System
    job: dict[str, Any]
    mark: str
    log: Path
    """Where its stderr goes."""
    limit_s: float
    started_at: float = 0.0
    peak: tuple[int, int] = (0, 0)
    """Bytes of the tree, the most that was seen: each page once, and as the sum of resident sets."""
    _answers: "queue.Queue[str]" = field(default_factory=queue.Queue)
    _process: "subprocess.Popen[str] | None" = None

    def start(self) -> dict[str, Any]:
        """Start, and wait until it is ready; returns its first facts, with ``startup_s`` and ``setup_s`` (without imports)."""
        env = {k: v for k, v in os.environ.items() if k not in THREADS}
        env |= {
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            **self.system.env,
        }
        env |= child_environment()
        env[process_tree.MARK] = self.mark
        if len(self.job["folder"]) < 40:  # Ray's sockets lie there, and their names have at most 107 bytes
            env["RAY_TMPDIR"] = self.job["folder"]
        self.started_at = time.monotonic()
        command = [sys.executable, "-m", f"experiments.bench.systems.{self.system.module}"]
        pipe = subprocess.PIPE
        with self.log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, bufsize=1, env=env, start_new_session=True
            )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        facts = self.ask(json.dumps(self.job))
        now = time.monotonic()
        return {**facts, "startup_s": now - self.started_at, "setup_s": now - facts["imported_at"]}

    def ask(self, line: str) -> dict[str, Any]:
        """Say one line, return the answer to it. Raises Stopped where there is none."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            text = self._answers.get(timeout=self.limit_s)
        except queue.Empty:
            raise Stopped("failed", f"no answer in {self.limit_s:g} s") from None
        except OSError:
            text = ""
        if not text:
            raise Stopped(
                "failed", f"the process ended with code {self._process.wait()}: {self.tail(1) or 'nothing on stderr'}"
            )
        answer: dict[str, Any] = json.loads(text)
        if "unavailable" in answer:
            raise Stopped("unavailable", answer["unavailable"])
        if "error" in answer:
            raise Stopped("failed", answer["error"])
        return answer

    def go(self) -> dict[str, Any]:
        """One go; adds ``cpu_s``, the processor seconds that the tree spent on it."""
        before = process_tree.cpu_s(self.mark)
        answer = self.ask("go")
        return {**answer, "cpu_s": process_tree.cpu_s(self.mark) - before}

    def freeze(self) -> None:
        """Let it use no processor while others are timed."""
        process_tree.freeze(self.mark)

    def thaw(self) -> None:
        """End ``freeze``."""
        process_tree.thaw(self.mark)

    def measure(self) -> None:
        """Look at its memory now."""
        now = process_tree.memory(self.mark)
        self.peak = max(self.peak[0], now[0]), max(self.peak[1], now[1])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at its memory again and again meanwhile; not while it is timed, unless a go is a whole run."""
        done = threading.Event()

        def look() -> None:
            pause = EVERY_S
            while not done.wait(pause):
                start = time.perf_counter()
                self.measure()
                pause = max(EVERY_S, (time.perf_counter() - start) / LOOK_SHARE)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tail(self, lines: int = 20) -> str:
        """The end of its stderr."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        """End it and all that it started."""
        process_tree.kill(self.mark)
        if self._process is not None:
            self._process.wait()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put(line)
        self._answers.put("")
