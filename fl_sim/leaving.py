"""``os._exit``: refused while the code of a user runs, and the only way to end a process whose cleaning up would crash.

In a user's code it would end a run in silence, with any exit code; ``sys.exit`` needs no such guard, because it raises
an exception.
"""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, NoReturn

_module: Any = os
_original, _lock = os._exit, Lock()
_owners: list[int] = []
"""The process, once for each ``no_exit`` that is open."""


_crashes: list[str] = []


def crashes_at_its_end() -> bool:
    """Whether this process must end by ``os._exit``, because a library that it uses would crash as it cleans up."""
    return bool(_crashes)


def will_crash(library: str) -> None:
    """Tell that ``library`` would crash at the end of this process, which then ends before, with exit code 1.

    A command ends with its own exit code: see ``experiments.command_ends``.
    """
    if not _crashes:
        atexit.register(leave, 1)
    _crashes.append(library)


def leave(code: int) -> NoReturn:
    """End this process at once with an exit code, after what was printed is written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    _original(code)
    raise AssertionError("the process has ended")


@contextmanager
def no_exit() -> Iterator[None]:
    """While open, ``os._exit`` raises RuntimeError in this process; in processes that it forks it works as ever."""
    with _lock:
        _owners.append(os.getpid())
        _module._exit = _refused
    try:
        yield
    finally:
        with _lock:
            _owners.pop()
            if not _owners:
                _module._exit = _original


def _refused(status: int) -> NoReturn:
    if os.getpid() not in _owners:
        _original(status)
    raise RuntimeError(f"os._exit({status!r}) was called: it would end the whole run, and is refused")
