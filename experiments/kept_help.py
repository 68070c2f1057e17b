"""The text of ``run --help`` and ``list``, kept from the last call: to show it again imports neither torch nor Flower.

A text is kept in the cache folder (FL_SIM_CACHE) under a key of all that it depends on: the source files and recipes of
this project, Python, tyro, and the terminal. Where anything of that has changed, the text is made anew.
"""

import atexit
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from experiments.installation import PACKAGES, ROOT

CALLS = {("run", "--help"), ("run", "-h"), ("list",), ("list", "--json")}
"""The calls whose text is kept."""
TERMINAL = ("COLUMNS", "TERM", "NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS")
"""Environment variables that change how a text looks."""


def words_of(command: list[str]) -> tuple[str, ...]:
    """The words after ``experiments.`` in ``python -m experiments.run --help``, or after ``fl-sim``; () of others."""
    if "-m" in command[:-1]:
        module, *rest = command[command.index("-m") + 1 :]
        return (module.removeprefix("experiments."), *rest) if module.startswith("experiments.") else ()
    scripts = [n for n, word in enumerate(command) if os.path.basename(word) in ("fl-sim", "fl-sim.exe")]
    return tuple(command[scripts[0] + 1 :]) if scripts else ()


def show_or_keep() -> None:
    """Where this process was asked for a text that is kept: print it and end. Where it is not yet: keep what it prints.

    Raises SystemExit with code 0 after the text was printed.
    """
    words = words_of(list(getattr(sys, "orig_argv", ())))
    if words not in CALLS or sys.stdout is None:
        return
    with suppress(OSError, ValueError):  # a cache that cannot be read or written is none
        file = os.path.join(folder(), f"{'-'.join(words).strip('-')}-{key(words)}.txt")
        if os.path.exists(file):
            with open(file, encoding="utf-8") as kept:
                text = kept.read()
            sys.stdout.write(text)
            raise SystemExit(0)
        sys.stdout = Tee(sys.stdout, file)


def folder() -> str:
    """Where texts are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.expanduser(os.path.join(os.environ.get("FL_SIM_CACHE") or os.path.join(base, "fl-sim"), "help"))


def key(words: tuple[str, ...]) -> str:
    """A text that changes with all that the text of ``words`` depends on."""
    sha = hashlib.sha256(repr((words, sys.version, ROOT, [os.environ.get(name) for name in TERMINAL])).encode())
    sha.update(repr((sys.stdout.isatty(), shutil.get_terminal_size())).encode())
    for package in PACKAGES:
        for path, stat in sorted(files(os.path.join(ROOT, package))):
            sha.update(f"{path}:{stat.st_mtime_ns}:{stat.st_size};".encode())
    if (spec := find_spec("tyro")) is not None and spec.origin:
        sha.update(f"{spec.origin}:{os.stat(spec.origin).st_mtime_ns}".encode())
    return sha.hexdigest()[:20]


def files(place: str) -> Iterator[tuple[str, os.stat_result]]:
    """The source files and recipes below a folder."""
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from files(entry.path)
            elif entry.name.endswith((".py", ".toml")):
                yield entry.path, entry.stat()


class Tee:
    """A stream that keeps what is written into it, and writes it into a file when the process ends without an error."""

    def __init__(self, stream: Any, file: str) -> None:
        self.stream, self.file, self.parts, self.broken = stream, file, list[str](), False
        atexit.register(self.keep)

    def write(self, text: str) -> int:
        """Write into the stream."""
        try:
            written = int(self.stream.write(text))
        except BaseException:  # a pipe was closed: the text is not whole
            self.broken = True
            raise
        self.parts.append(text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def keep(self) -> None:
        """Write the file, as a whole or not at all; older texts of the same call go."""
        with suppress(OSError, ValueError):
            self.stream.flush()
            if self.broken or not self.parts or getattr(sys, "last_value", None) is not None:
                return
            where, name = os.path.split(self.file)
            os.makedirs(where, exist_ok=True)
            for old in os.listdir(where):
                if old.rpartition("-")[0] == name.rpartition("-")[0]:
                    os.unlink(os.path.join(where, old))
            temporary = f"{self.file}.{os.getpid()}"
            with open(temporary, "w", encoding="utf-8") as kept:
                kept.write("".join(self.parts))
            os.replace(temporary, self.file)
