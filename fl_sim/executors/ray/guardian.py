"""A forked process that waits for the end of this one, and ends its run where it could not do so itself.

Ray's library ends the process that uses it, at once, when it misses a process of its own during a call. No code of that
process runs then. The guardian has the same memory, as it was when the run began.
"""

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fl_sim.executors.ray.local_processes import end_processes
from fl_sim.leaving import leave

LOOK_S = 0.5
"""Seconds between two looks at the process."""


@contextmanager
def guarded(abandoned: Callable[[], None]) -> Iterator[None]:
    """While open, ``abandoned()`` is called in another process if this one ends; the processes of Ray end with it.

    Has no effect on systems without ``fork``.
    """
    if not hasattr(os, "fork"):
        yield
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()  # the guardian would print what is waiting once more
    reading, writing = os.pipe()
    owner = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the guardian takes no lock of another thread
        guardian = os.fork()
    if guardian == 0:
        try:
            _guard(owner, reading, writing, abandoned)
        finally:
            leave(0)
    os.close(reading)
    try:
        yield
    finally:
        if os.getpid() == owner:
            with suppress(OSError):
                os.write(writing, b"done")
            os.close(writing)
            with suppress(ChildProcessError):
                os.waitpid(guardian, 0)


def _guard(owner: int, reading: int, writing: int, abandoned: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to this process too
    os.close(writing)
    while not select.select([reading], [], [], LOOK_S)[0] and os.getppid() == owner:
        pass
    if select.select([reading], [], [], 0)[0] and os.read(reading, 4):
        return
    end_processes()
    abandoned()
