"""Creating the folder of a run, of a comparison or of a partition's pictures."""

import re
from datetime import datetime
from pathlib import Path


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
