"""The temporary folders of ``deploy up``, with the keys of its processes: each is removed when its deployment ends.

A deployment that is killed cannot do that, so the next one does. A home belongs to a living deployment as long as its
file ``owner.lock`` is locked; the system unlocks it when the process ends, in whatever way.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREFIX, LOCK = "fl-sim-deploy-", "owner.lock"
"""What the names of homes begin with, and the file that its deployment holds locked."""
YOUNG_S = 3600.0
"""A home without a lock may be one that is being created, or one of an older version: it is left alone so long."""


@contextmanager
def new_home() -> Iterator[Path]:
    """Context manager: a temporary folder that is locked until it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, (Path(name) / LOCK).open("wb") as lock:
        _locked(lock)
        yield Path(name)


def remove_left() -> list[Path]:
    """Remove the homes that killed deployments of this user left; returns them. Does nothing without such locks."""
    removed = []
    for home in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            facts = home.lstat()  # another user may have put a link there
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or not _is_left(home, facts.st_mtime):
                continue
            shutil.rmtree(home)
        except (OSError, AttributeError):  # removed by another process at this moment; a system without users
            continue
        removed.append(home)
    return removed


def _is_left(home: Path, changed: float) -> bool:
    """Whether no process has the home's lock."""
    try:
        with (home / LOCK).open("rb") as lock:
            return _locked(lock)
    except FileNotFoundError:
        return time.time() - changed > YOUNG_S


def _locked(file: Any) -> bool:
    """Lock an open file; returns whether that was possible."""
    try:
        import fcntl  # Windows lacks this module.

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, BlockingIOError):
        return False
    return True
