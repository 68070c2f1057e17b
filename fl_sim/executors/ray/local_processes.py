"""The processes of a Ray that was started on this machine: whether they live, and the end of what is left of them.

Where Ray's ``raylet`` or ``gcs_server`` has been killed, the next call of Ray ends this process, or waits for a minute
and ends it then: without a summary, without a message. So every call is preceded by ``check_alive``, which only asks
the system about child processes. A call that is under way at that moment cannot be saved: see ``Watchdog``, and
``fl_sim.executors.ray.guardian``.
"""

import atexit
import importlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fl_sim.errors import RoundFailed
from fl_sim.leaving import leave, will_crash

MARKS = tuple(f"FL_SIM_RAY_{number}" for number in range(8))
"""The environment variables by which the processes that Ray starts are found later.

Ray's agents have a title, which overwrites some of their variables, here and there.
"""
PROC = Path("/proc")
"""Folder with the environment of each process, on Linux."""
PATIENCE_S = 10.0
"""Seconds that a call of Ray may still take after one of its processes has died."""
_mark = uuid.uuid4().hex
_died: list[str] = []
"""What died, of a Ray that was started here."""
_told = threading.Event()
"""Set when the run under way has been told."""


@contextmanager
def processes_of_ray() -> Iterator[None]:
    """While open, processes that are started get a mark; this process keeps its handlers of signals."""
    os.environ.update(dict.fromkeys(MARKS, _mark))
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        for name in MARKS:
            os.environ.pop(name, None)
        with suppress(ValueError):  # only the main thread can set a handler, so that Ray has set none in another
            if before is not None and signal.getsignal(signal.SIGTERM) is not before:
                signal.signal(signal.SIGTERM, before)


def has_died() -> bool:
    """Whether the Ray that was started here has ended without being asked: it must not be called any more.

    Its other processes are ended, when this is seen first. ``ray.shutdown()`` disconnects before it ends the processes,
    so those that are seen dead after that were asked to end.
    """
    if _died:
        return True
    worker: Any = importlib.import_module("ray._private.worker")
    node, dead = vars(worker)["_global_node"], []
    with suppress(RuntimeError):  # ray.shutdown() in another thread changes the table while it is read
        dead = [(name, process.returncode) for name, process in node.dead_processes()] if node is not None else []
    if not dead or not vars(worker)["global_worker"].connected:
        return False
    name, code = dead[0]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    _died.append(f"engine = 'ray': Ray's process {name} {how}; its logs are in {node.get_logs_dir_path()}")
    atexit.unregister(worker.shutdown)  # it would wait for the processes that are gone
    will_crash("ray")
    end_processes()
    return True


def check_alive() -> None:
    """Raise RoundFailed where a process of the Ray that was started here has ended."""
    if has_died():
        _told.set()
        raise RoundFailed(_died[0])


class Watchdog(threading.Thread):
    """Ends this process where a call of Ray waits for a process that has died; the guardian then ends the run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        """Look twice a second."""
        while not has_died():
            time.sleep(0.5)
        if not _told.wait(PATIENCE_S):
            leave(1)


def end_processes(patience_s: float = 5.0) -> None:
    """Kill all processes that Ray has started for this one, and wait until they are gone; only where there is /proc."""
    until = time.monotonic() + patience_s
    while (left := _marked()) and time.monotonic() < until:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _marked() -> list[int]:
    """The processes that have one of the marks, and are no zombies."""
    found, marks = [], {f"{name}={_mark}".encode() for name in MARKS}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if not marks.isdisjoint((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found
