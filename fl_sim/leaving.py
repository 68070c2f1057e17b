"""``os._exit`` is refused while the code of a user runs: it would end a run in silence, with any exit code.

``sys.exit`` needs no such guard, because it raises an exception.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NoReturn

_module: Any = os
_original, _lock = os._exit, Lock()
_owners: list[int] = []
"""The process, once for each ``no_exit`` that is open."""


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
