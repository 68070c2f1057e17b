"""Creating the folder of a run, of a comparison or of a partition's pictures, and locking it."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any


def new_folder(parent: Path, name: str) -> Path:
    """Create the folder ``parent/NAME-DATE-TIME`` (local time), or ``parent/NAME-DATE-TIME-2`` and so on if it exists.

    Creating a folder is atomic, so that processes that start within the same second never share one.

    Parameters
    ----------
    parent : Path
        Created if it does not exist.
    name : str
        Characters that do not belong in a file name become dashes, and at most 100 characters are used; "run" where
        nothing is left.

    Raises
    ------
    OSError
        If the folder cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.=+-]+", "-", name).strip("-.")[:100] or "run"
    stem = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def lock(file: Any, path: Path) -> None:
    """Lock the folder against other processes until the file is closed or this process ends.

    Has no effect on systems without such locks.
    """
    try:
        import fcntl  # Windows lacks this module.

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{path}: another process has this run folder open; let it end, or name another folder"
        ) from None
