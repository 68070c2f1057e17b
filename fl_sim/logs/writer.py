"""Writing a round log: one folder per run, with files that are only appended to or replaced as a whole.

``config.toml`` is written at the start. ``rounds.jsonl`` (one line per round), ``clients.jsonl`` (one line per round,
phase and client) and ``events.jsonl`` are appended to while the run goes on; ``model.safetensors`` and ``summary.json``
are replaced as a whole. Lines reach the operating system before a call returns, so that a killed process loses none;
an asynchronous run lets them wait a moment (``lines_wait``). Names and units of columns: ``fl_sim.logs.columns``.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from fl_sim.logs import checksums, model_file
from fl_sim.logs.checksums import CHECKSUMS
from fl_sim.logs.columns import COLUMNS, CONFIG, MODEL, NAMES, SUMMARY
from fl_sim.logs.folder import lock, new_folder
from fl_sim.logs.libraries import library_lines
from fl_sim.logs.line_file import LineFile

APPENDED = ("rounds.jsonl", "clients.jsonl", "events.jsonl")
"""The files that are appended to while a run goes on."""


class RoundLog:
    """The log of one run, open for writing. A context manager that closes the files; ``close`` does the same."""

    def __init__(self, path: Path) -> None:
        """Open the files in the existing folder ``path`` for appending; ``create`` makes a new folder.

        Raises ValueError if another process has the folder open.
        """
        self.path = path
        self._rounds = LineFile(path / "rounds.jsonl")
        lock(self._rounds.raw, path)
        (path / CHECKSUMS).unlink(missing_ok=True)
        self._clients, self._events = LineFile(path / "clients.jsonl"), LineFile(path / "events.jsonl")
        self._last, self._sealed = -1, False
        self._start, self._text = 0, ""
        self.state_dict: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
        """From a trained tree to the names and numbers that ``model.safetensors`` has: those of the user's module."""

    @classmethod
    def create(cls, parent: Path, name: str, config_toml: str) -> Self:
        """Open a log in a new folder ``parent/NAME-DATE-TIME`` and write its ``config.toml``.

        Parameters
        ----------
        parent : Path
            Folder for runs; created if it does not exist.
        name : str
            Name of the run; see ``fl_sim.logs.folder.new_folder``.
        config_toml : str
            Content of ``config.toml``.

        Raises
        ------
        ValueError
            That names ``out``, if the folder cannot be created or written.
        """
        try:
            path = new_folder(parent, name)
            (path / CONFIG).write_text(config_toml, encoding="utf-8")
            return cls(path)
        except OSError as error:
            why = "it is a file" if parent.is_file() else error.strerror
            raise ValueError(
                f"out = {str(parent)!r}: no run folder can be made there ({why}); name a folder that can be written"
            ) from error

    @classmethod
    def reopen(cls, path: Path, positions: Mapping[str, int], server_round: int, line: str = "") -> Self:
        """Open the log of a run that is resumed after ``server_round``.

        Each file is truncated to its position (bytes, by file name) in ``positions``. ``line`` : replaces the line of
        ``server_round``, which ends there; empty: it stays. Raises ValueError if another process has the folder open,
        or if a file is shorter than its position.
        """
        log = cls(path)
        for file in log._files:
            name, end = file.name, positions.get(file.name, 0)
            end -= len(as_bytes(line)) if line and file is log._rounds else 0
            if file.size < end:
                log.close()
                raise ValueError(
                    f"{path / name}: is shorter than when round {server_round} ended; it was cut or replaced"
                )
            file.cut(end)
        (path / SUMMARY).unlink(missing_ok=True)  # of its end before
        log._last = server_round
        if line:
            log._append_line(line)
        return log

    @property
    def positions(self) -> dict[str, int]:
        """The current size of each file, in bytes, by file name."""
        self.flush()
        return {file.name: file.size for file in self._files}

    @property
    def _files(self) -> tuple[LineFile, ...]:
        return self._rounds, self._clients, self._events

    def lines_wait(self, seconds: float) -> None:
        """From now on lines of rounds and clients may wait so long for the next, or until anything else is written.

        0: they reach the operating system at once, as in the beginning.
        """
        self._rounds.wait = self._clients.wait = seconds
        self.flush()

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        self._clients.flush()
        self._rounds.flush()

    def round(self, row: Mapping[str, object]) -> None:
        """Append the line of one round; documented columns that ``row`` lacks are null.

        Raises ValueError unless ``row["round"]`` is an integer greater than that of the previous line.
        """
        number = row.get("round")
        if not isinstance(number, int) or number <= self._last:
            raise ValueError(
                f"rounds.jsonl: round = {number!r} after round {self._last}; each round has one line, in order"
            )
        self._last = number
        self._unseal()
        self._append_line(line_of(row))

    def amend(self, row: Mapping[str, object]) -> None:
        """Replace the last line: the model of its round was evaluated after it had been written."""
        start, old = self.last_line
        self._unseal()
        self._rounds.cut(start)
        try:
            self._append_line(line_of(row))
            self.flush()
        except OSError:  # the disk is full
            self._rounds.cut(start)
            self._append_line(old)
            raise

    def _append_line(self, text: str) -> None:
        self._start = self._rounds.size
        self._rounds.write(as_bytes(text))
        self._text = text

    @property
    def last_line(self) -> tuple[int, str]:
        """(the position in ``rounds.jsonl`` where the last line begins, in bytes; the line)."""
        if not self._text and (found := self.line_of_round(self._last)) is not None:
            self._start, self._text = found
        return self._start, self._text

    def rounds_so_far(self) -> list[dict[str, object]]:
        """The rows of all rounds so far, without null values."""
        self.flush()
        whole, _, _ = (self.path / "rounds.jsonl").read_text(encoding="utf-8").rpartition("\n")  # the last may be cut
        return [{k: v for k, v in json.loads(line).items() if v is not None} for line in whole.splitlines()]

    def line_of_round(self, server_round: int) -> tuple[int, str] | None:
        """(the position in ``rounds.jsonl`` where the line of a round begins, in bytes; the line); None without one."""
        self.flush()
        start = 0
        for line in (self.path / "rounds.jsonl").read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and json.loads(line)["round"] == server_round:
                return start, line[:-1].decode()
            start += len(line)
        return None

    def clients(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append one line per row; a row describes one client in one round and phase."""
        self._unseal()
        self._clients.write(b"".join(map(_line, rows)))

    def event(self, kind: str, **facts: object) -> None:
        """Append an event of ``kind`` (a retry, a failure, a smaller chunk) with the time and further columns."""
        self._unseal()
        self.flush()
        self._events.write(_line({"time": time.time(), "event": kind, **facts}))

    def config(self, toml: str) -> None:
        """Replace ``config.toml``, for instance after the inner chunk was halved because memory ran out."""
        self._replace(CONFIG, lambda temporary: temporary.write_text(toml, encoding="utf-8"))

    def names(self, tables: Mapping[str, object]) -> None:
        """Replace ``names.json``: lists by name, ``classes`` and ``clients``, whose places are the numbers in use."""
        text = json.dumps(plain(dict(tables)), allow_nan=False, ensure_ascii=False) + "\n"
        self._replace(NAMES, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))

    def model(self, tree: Mapping[str, Tensor], server_round: int, digest: str = "") -> None:
        """Replace ``model.safetensors`` by ``tree``, the global model after ``server_round``.

        ``digest`` : that of ``tree`` in the round's line; empty where it is not known.
        """
        state = self.state_dict(tree)
        same = state.keys() == tree.keys() and all(x.dtype == tree[k].dtype for k, x in state.items())
        self._replace(MODEL, lambda temporary: model_file.write(temporary, state, server_round, digest, same))

    def summary(self, summary: Mapping[str, object]) -> None:
        """Replace ``summary.json``, and write the checksums of all text files: the run has ended."""
        text = json.dumps(plain(dict(summary)), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        self._replace(SUMMARY, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        sums = checksums.text(self.path)
        self._replace(CHECKSUMS, lambda temporary: temporary.write_text(sums, encoding="utf-8"))
        self._sealed = True

    def _unseal(self) -> None:
        """Delete the checksums before something else is written."""
        if self._sealed:
            (self.path / CHECKSUMS).unlink(missing_ok=True)
            self._sealed = False

    def close(self) -> None:
        """Close the files; further calls have no effect."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        library_lines.start(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        library_lines.end(self.path)
        self.close()

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a temporary file and rename it: a reader sees either the old file or the new one, both complete."""
        self._unseal()
        self.flush()
        temporary = self.path / f".{name}.{os.getpid()}"
        try:
            write(temporary)
            os.replace(temporary, self.path / name)
        finally:
            temporary.unlink(missing_ok=True)


def line_of(row: Mapping[str, object]) -> str:
    """The line of ``rounds.jsonl`` for a row, without its end; documented columns that the row lacks are null."""
    return _line({**dict.fromkeys(COLUMNS["rounds"]), **row})[:-1].decode()


def as_bytes(line: str) -> bytes:
    """A line as the file has it."""
    return line.encode() + b"\n"


def _line(row: Mapping[str, object]) -> bytes:
    """One row as a line of JSON: tensors and NumPy numbers as Python numbers, NaN and infinity as null."""
    try:
        text = _ENCODER.encode(row)
    except ValueError:  # NaN or infinity occurs. This is rare, so that values are checked one by one only here.
        text = _ENCODER.encode(plain(row))
    # A path may contain characters that UTF-8 cannot encode; JSON readers understand the escapes.
    return text.encode(errors="backslashreplace") + b"\n"


def plain(value: object) -> Any:
    """``value`` converted to types that JSON knows; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return plain(_foreign(value))


def _foreign(value: object) -> object:
    """Convert a tensor, a NumPy value or a path to a type that JSON knows. Raises TypeError for other types."""
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a round log holds numbers, text and lists of them, not a {type(value).__name__}: {value!r}")


_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_foreign)
