"""Files that records of states are appended to, and never changed: ``states/000001.seg`` and so on in a run's folder.

Each process that runs writes into new files. So what a run that was killed had written after its last checkpoint is
never read: no index names it. A file is deleted when no checkpoint that is kept, and no state in use, names it.
"""

import mmap
import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fl_sim.errors import Damaged
from fl_sim.states import state_record
from fl_sim.tree import Tree

FOLDER = "states"
"""The folder of segments in a run's folder."""
NAME = re.compile(r"(\d{6,})\.seg")
SEGMENT_BYTES = 1 << 26
"""Bytes after which a new segment begins."""
SYNC_BYTES = 1 << 24
"""Bytes after which a second thread begins to bring what was written to the disk, so that checkpoints wait less."""
MAPPED_BYTES = 1 << 16
"""Records of this size are mapped into memory; smaller ones are read, which is faster."""
MOST_BUFFERS = 1000
"""Buffers that one call writes; the system allows 1024."""


class Place(NamedTuple):
    """Where a state is stored."""

    segment: int
    offset: int
    length: int
    crc: int


def path_of(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"{segment:06d}.seg"


def numbers(folder: Path) -> list[int]:
    """The segments in a folder, which need not exist. Files with other names are left alone."""
    if not folder.is_dir():
        return []
    return sorted(int(found[1]) for name in os.listdir(folder) if (found := NAME.fullmatch(name)))


def read(folder: Path, client: int, place: Place) -> Tree:
    """The state of a client, whose leaves are its own memory: a private mapping of the file, or a copy.

    Raises Damaged where it is not the state that was stored.
    """
    with _reading(folder, client, place) as file:
        record = (_mapped if place.length >= MAPPED_BYTES else _copied)(file, place)
        return state_record.decode(client, record, place.crc)


def check(folder: Path, client: int, place: Place) -> None:
    """Raise Damaged unless the state of a client is stored there as it was."""
    with _reading(folder, client, place) as file:
        state_record.leaves_of(client, _copied(file, place), place.crc)


@contextmanager
def _reading(folder: Path, client: int, place: Place) -> Iterator[int]:
    """The descriptor of a segment that is long enough, to be read from."""
    path = path_of(folder, place.segment)
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(file).st_size < place.offset + place.length:
                raise state_record.Malformed("the file is cut short")
            yield file
        finally:
            os.close(file)
    except (OSError, OverflowError) as error:
        raise Damaged(f"{path}: the state of client {client} cannot be read ({error})") from error
    except state_record.Malformed as error:
        where = f"the state of client {client} at byte {place.offset} is damaged"
        raise Damaged(f"{path}: {where}: {error}") from error


def _mapped(file: int, place: Place) -> memoryview:
    """Writes into it reach neither the file nor another reader. The mapping ends with the tensors that use it."""
    start = place.offset % mmap.ALLOCATIONGRANULARITY
    whole = mmap.mmap(file, start + place.length, access=mmap.ACCESS_COPY, offset=place.offset - start)
    return memoryview(whole)[start:]


def _copied(file: int, place: Place) -> memoryview:
    return memoryview(bytearray(os.pread(file, place.length, place.offset)))


class Segments:
    """The segments of one folder, open for appending; its owner has the lock of the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = 0
        """The number of the segment that is appended to; 0 before the first record."""
        self._file, self._end, self._unsynced = -1, 0, 0
        self._thread: ThreadPoolExecutor | None = None
        self._syncing: list[Future[None]] = []

    def append(self, client: int, state: Tree) -> Place:
        """Store a state; it can be read at once. Raises OSError (a full disk)."""
        return self._append(*state_record.encode(client, state))

    def move(self, client: int, place: Place) -> Place:
        """Store a state again, at the end. Raises OSError, and Damaged where it is not as it was."""
        with _reading(self.folder, client, place) as file:
            record = _copied(file, place)
            state_record.leaves_of(client, record, place.crc)
        return self._append([record], place.length, place.crc)

    def _append(self, buffers: list[Any], length: int, crc: int) -> Place:
        if not self.current or self._end >= SEGMENT_BYTES:
            self._begin()
        done = os.pwritev(self._file, buffers, self._end) if len(buffers) <= MOST_BUFFERS else 0
        if done < length:  # it may be cut short at any byte
            left = memoryview(b"".join(buffers))[done:]
            while left:
                left = left[os.pwrite(self._file, left, self._end + length - len(left)) :]
        place = Place(self.current, self._end, length, crc)
        self._end += length  # after an error the next record takes this one's place
        self._unsynced += length
        if self._unsynced >= SYNC_BYTES:
            self._sync_later()
        return place

    def size(self, segment: int) -> int:
        """Bytes of a segment; 0 where it is not there."""
        path = path_of(self.folder, segment)
        return path.stat().st_size if path.is_file() else 0

    def _begin(self) -> None:
        """Open a new segment."""
        self.folder.mkdir(exist_ok=True)
        number = max([self.current, *numbers(self.folder)], default=0) + 1
        file = os.open(path_of(self.folder, number), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if self._file >= 0:
            self._sync_later()
            self._syncing.append(self._pool().submit(os.close, self._file))
        self._file, self._end, self.current = file, 0, number

    def _pool(self) -> ThreadPoolExecutor:
        self._thread = self._thread or ThreadPoolExecutor(1, "states")
        return self._thread

    def _sync_later(self) -> None:
        self._syncing = [each for each in self._syncing if not each.done() or each.exception() is not None]
        self._syncing.append(self._pool().submit(os.fsync, self._file))
        self._unsynced = 0

    def sync(self) -> None:
        """Wait until all that was appended is on the disk. Raises OSError."""
        waiting, self._syncing = self._syncing, []
        for each in waiting:
            each.result()
        if self._unsynced:
            os.fsync(self._file)
            self._unsynced = 0

    def remove(self, named: Collection[int]) -> None:
        """Delete the segments that are not ``named``, also those of earlier processes, but for the current one."""
        for number in numbers(self.folder):
            if number not in named and number != self.current:
                path_of(self.folder, number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the next record begins a new one. Errors of what was not waited for are lost."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        if self._file >= 0:
            os.close(self._file)
        self._file, self.current, self._unsynced, self._syncing = -1, 0, 0, []
