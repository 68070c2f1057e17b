"""Writing a round log: append-only files in one folder a run. No paper.

``config.toml`` at the start; ``rounds.jsonl`` (one line a round), ``clients.jsonl`` (one a round, phase and
client) and ``events.jsonl`` as it goes; ``model.safetensors`` and ``summary.json`` replaced whole. Lines reach
the operating system before a call returns, so a killed process loses none. Names and units: ``fl_sim.logs.reader``.
"""

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from fl_sim.logs.columns import COLUMNS, CONFIG, MODEL, SUMMARY, Column
from fl_sim.logs.reader import RunLog, load

__all__ = ["COLUMNS", "Column", "RoundLog", "RunLog", "load"]


class RoundLog:
    """The log of one run, open for writing. A context manager; ``close`` may also be called."""

    def __init__(self, path: Path) -> None:
        """Append to the files in the folder ``path``; ``create`` is the way to a new one.

        Raises ValueError where another process has the folder open.
        """
        self.path = path
        self._rounds = (path / "rounds.jsonl").open("ab", buffering=0)
        _lock(self._rounds, path)
        self._clients = (path / "clients.jsonl").open("ab", buffering=0)
        self._events = (path / "events.jsonl").open("ab", buffering=0)
        self._last = -1

    @classmethod
    def create(cls, parent: Path, name: str, config_toml: str) -> Self:
        """A new folder in ``parent`` (made if need be) called ``name`` and the time; never one that exists.

        Raises ValueError that names ``out`` where no folder can be made or written.
        """
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = _new_folder(parent, name)
            (path / CONFIG).write_text(config_toml, encoding="utf-8")
            return cls(path)
        except OSError as error:
            why = "it is a file" if parent.is_file() else error.strerror
            raise ValueError(
                f"out = {str(parent)!r}: no run folder can be made there ({why}); name a folder that can be written"
            ) from error

    @classmethod
    def reopen(cls, path: Path, positions: Mapping[str, int], server_round: int) -> Self:
        """The log of a run that goes on after ``server_round``: what its files hold behind ``positions`` is cut off.

        Raises ValueError where another process has the folder open, or a file is shorter than its position.
        """
        log = cls(path)
        for file in log._files:
            name, end = Path(file.name).name, positions.get(Path(file.name).name, 0)
            if os.fstat(file.fileno()).st_size < end:
                log.close()
                raise ValueError(
                    f"{path / name}: is shorter than when round {server_round} ended; it was cut or replaced"
                )
            file.truncate(end)
            file.seek(end)
        log._last = server_round
        return log

    @property
    def positions(self) -> dict[str, int]:
        """Bytes of each file so far."""
        return {Path(file.name).name: os.fstat(file.fileno()).st_size for file in self._files}

    @property
    def _files(self) -> tuple[Any, ...]:
        return self._rounds, self._clients, self._events

    def round(self, row: Mapping[str, Any]) -> None:
        """Append the line of one round; documented columns that ``row`` lacks are null.

        Raises ValueError for a row without a number, or of a round that is not later than the last.
        """
        number = row.get("round")
        if not isinstance(number, int) or number <= self._last:
            raise ValueError(
                f"rounds.jsonl: round = {number!r} after round {self._last}; each round has one line, in order"
            )
        self._last = number
        _append(self._rounds, _line({**dict.fromkeys(COLUMNS["rounds"]), **row}))

    def rounds_so_far(self) -> list[dict[str, Any]]:
        """The rounds' lines so far, without what is null in them."""
        lines = (self.path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if v is not None} for line in lines]

    def clients(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append one line a row: what one client did in one round and phase."""
        _append(self._clients, b"".join(map(_line, rows)))

    def event(self, kind: str, **facts: Any) -> None:
        """Append something that happened, with the time and its facts (a retry, a failure, a smaller chunk)."""
        _append(self._events, _line({"time": time.time(), "event": kind, **facts}))

    def config(self, toml: str) -> None:
        """Replace ``config.toml``: what was asked for could not be kept to (a smaller inner chunk)."""
        self._replace(CONFIG, lambda temporary: temporary.write_text(toml, encoding="utf-8"))

    def model(self, tree: Mapping[str, Tensor], server_round: int) -> None:
        """Replace ``model.safetensors`` by ``tree``, the global model after ``server_round`` (kept in its metadata)."""
        own = {
            k: v.detach().cpu().contiguous().clone() for k, v in tree.items()
        }  # the format refuses tensors that share memory
        self._replace(MODEL, lambda temporary: save_file(own, temporary, metadata={"round": str(server_round)}))

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Replace ``summary.json``."""
        text = json.dumps(plain(dict(summary)), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        self._replace(SUMMARY, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        """Write beside the file and rename, so that a reader sees the old one or the new one, whole."""
        temporary = self.path / f".{name}.{os.getpid()}"
        try:
            write(temporary)
            os.replace(temporary, self.path / name)
        finally:
            temporary.unlink(missing_ok=True)


def _new_folder(parent: Path, name: str) -> Path:
    """Make ``parent/NAME-DATE-TIME[-n]``: mkdir is atomic, so processes that start in the same second never share one."""
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


def _lock(file: Any, path: Path) -> None:
    """Keep others from the folder while the file is open, or this process lives; where the system has no such locks, nothing."""
    try:
        import fcntl  # which Windows lacks

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{path}: another process has this run folder open; let it end, or name another folder"
        ) from None


def _append(file: Any, data: bytes) -> None:
    left = memoryview(data)
    while (
        left
    ):  # unbuffered: on a full disk the system takes a part, then refuses, and nothing waits to be written again
        left = left[file.write(left) :]


def _line(row: Mapping[str, Any]) -> bytes:
    """One row as a line of JSON: tensors and NumPy numbers as Python's, NaN and infinity as null."""
    try:
        text = _ENCODER.encode(row)
    except ValueError:  # a NaN or an infinity somewhere: rare, so only then is every value looked at
        text = _ENCODER.encode(plain(row))
    return text.encode(errors="backslashreplace") + b"\n"  # a path may hold what UTF-8 does not; JSON reads it back


def plain(value: Any) -> Any:
    """``value`` as JSON can say it."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return plain(_foreign(value))


def _foreign(value: Any) -> Any:
    """A Python value for one that JSON does not know. Raises TypeError for what no log should hold."""
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a round log holds numbers, text and lists of them, not a {type(value).__name__}: {value!r}")


_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_foreign)


def versions() -> dict[str, str]:
    """What ran, for summary.json: Python and packages; one that is used out of its folder has no version."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("flwr", "torch", "numpy", "fl-sim"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
