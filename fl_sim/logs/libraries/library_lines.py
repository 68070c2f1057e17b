"""What Flower and Ray log, and their warnings: in files of the run's folder, not on the terminal, but for errors.

Lines that come while no run's folder is open wait for the next one, at most ``MOST`` of each library.
"""

import logging
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

FILES = {"flwr": "flower.log", "ray": "ray.log"}
"""The file of each library, by the name of its logger, which is also that of its package."""
MOST = 1000
"""Lines that wait, at most."""
FORM = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class LibraryLines(logging.Handler):
    """Writes the lines of one library into a file, or keeps them while there is none."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.INFO)
        self.file_name, self.waiting = FILES[name], deque[logging.LogRecord](maxlen=MOST)
        self.files: dict[Path, logging.FileHandler] = {}
        self.setFormatter(FORM)

    def open(self, folder: Path) -> None:
        """Write into ``folder`` from now on, first the lines that waited; the file is made by its first line."""
        file = logging.FileHandler(folder / self.file_name, encoding="utf-8", delay=True)
        file.setFormatter(FORM)
        file.handleError = self.handleError  # type: ignore[method-assign]
        self.files[folder] = file
        while self.waiting:
            self.emit(self.waiting.popleft())

    def close_file(self, folder: Path) -> None:
        """Write into ``folder`` no more."""
        if file := self.files.pop(folder, None):
            file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line into the file that was opened last, or keep it."""
        if not self.files:
            self.waiting.append(record)
            return
        with suppress(OSError):  # the file cannot be opened
            list(self.files.values())[-1].handle(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be written (a full disk) is lost: it must not end the run, whose own lines can."""


_LINES = {name: LibraryLines(name) for name in FILES}
_LOCK = threading.RLock()
_open = 0
_shown: Callable[..., Any] = warnings.showwarning


def terminal(name: str) -> list[logging.Handler]:
    """The handlers of a logger that write to the terminal."""
    handlers = logging.getLogger(name).handlers
    return [h for h in handlers if isinstance(h, logging.StreamHandler) and not isinstance(h, logging.FileHandler)]


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def collected(folder: Path | None = None) -> Iterator[None]:
    """While open, Flower and Ray show errors only; all that they log from INFO on goes into files.

    Parameters
    ----------
    folder : Path, optional
        The run's folder, which the lines go to; without one they go to the folder that is open, or wait for the next.
    """
    start(folder)
    try:
        yield
    finally:
        end(folder)


def start(folder: Path | None = None) -> None:
    """Begin to collect, as ``collected`` does; each call needs an ``end``."""
    global _open, _shown
    with _LOCK:
        _open += 1
        for name, lines in _LINES.items():
            logger = logging.getLogger(name)
            for handler in terminal(name):  # those that a library has made since the last call, too
                handler.addFilter(_is_error)
            logger.addHandler(lines)
            if folder is not None:
                lines.open(folder)
        if warnings.showwarning is not _show:
            _shown = warnings.showwarning
            warnings.showwarning = _show


def end(folder: Path | None = None) -> None:
    """Undo ``start`` with the same folder."""
    global _open
    with _LOCK:
        _open -= 1
        for name, lines in _LINES.items():
            if folder is not None:
                lines.close_file(folder)
            if not _open:
                logger = logging.getLogger(name)
                logger.removeHandler(lines)
                for handler in terminal(name):
                    handler.removeFilter(_is_error)
        if not _open and warnings.showwarning is _show:
            warnings.showwarning = _shown


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning: shown, or, where a line of a library gives it, logged as one of its lines."""
    for name, lines in _LINES.items():
        if f"{os.sep}{name}{os.sep}" in filename:
            text = f"{category.__name__}: {message}"
            lines.handle(logging.LogRecord(name, logging.WARNING, filename, lineno, text, None, None))
            return
    _shown(message, category, filename, lineno, file, line)
