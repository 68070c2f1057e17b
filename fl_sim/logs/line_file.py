"""A file of lines that is only appended to, and cut back. Lines may wait in memory for a moment, and stay whole."""

import os
import threading
import time
from pathlib import Path
from typing import Any

MOST_BYTES = 2**18
"""Lines that wait are written once they have so many bytes."""


class LineFile:
    """An open file of lines; what is written is appended.

    Parameters
    ----------
    path : Path
        The file; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.raw: Any = path.open("ab", buffering=0)
        self.name = path.name
        self.wait = 0.0
        """Seconds for which lines may wait for the next ``write``; 0: each reaches the operating system at once."""
        self._waiting, self._lock = bytearray(), threading.RLock()
        self._written = time.monotonic()
        """When lines were written last."""

    @property
    def size(self) -> int:
        """Bytes of the file, with those that wait."""
        with self._lock:
            return os.fstat(self.raw.fileno()).st_size + len(self._waiting)

    def write(self, data: bytes) -> None:
        """Append whole lines; where those before were written ``wait`` seconds ago, all that waits is written.

        Raises OSError on a full disk, as ``flush`` does.
        """
        with self._lock:
            self._waiting += data
            if len(self._waiting) > MOST_BYTES or not self.wait or time.monotonic() - self._written >= self.wait:
                self.flush()

    def flush(self) -> None:
        """Write what waits. Raises OSError on a full disk; what could not be written is then lost."""
        with self._lock:
            if self._waiting:
                data, self._waiting, self._written = self._waiting, bytearray(), time.monotonic()
                append(self.raw, data)

    def cut(self, size: int) -> None:
        """Cut the file to ``size`` bytes; the next line begins there."""
        self.flush()
        self.raw.truncate(size)
        self.raw.seek(size)

    def close(self) -> None:
        """Write what waits, and close the file; further calls have no effect."""
        if not self.raw.closed:
            try:
                self.flush()
            finally:
                self.raw.close()


def append(file: Any, data: bytes | bytearray) -> None:
    """Write all of ``data`` into an unbuffered file."""
    left = memoryview(data)
    while left:  # on a full disk one call may write only a part of the data, and the next call raises
        left = left[file.write(left) :]
