"""Checkpoints: all that a run needs to continue, one file each, written whole or not at all.

A file ``round-000012-<sha256>.safetensors`` holds the model, the clients' states and the strategy's attributes; its
header is JSON (``checkpoint_files/checkpoint_form.py``). The checksum in its name shows a damaged file. Where the
clients' states are large, it holds an index of them, and they are in files beside it (``fl_sim.states``). What only
pickle can hold is read where this user wrote it or trusts who did. The log is kept as byte positions of its files: a
run that continues cuts them back to these.
"""

import hashlib
import math
import os
import pickle
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fl_sim.errors import Damaged
from fl_sim.rounds.checkpoint_files import checkpoint_form
from fl_sim.rounds.checkpoint_files.checkpoint_form import Checkpoint, Malformed
from fl_sim.states.segment_files import FOLDER as STATES
from fl_sim.states.stored_states import StoredStates

__all__ = ["Checkpoint", "Checkpoints", "Damaged", "latest", "listed", "read", "round_of", "save"]

FOLDER, SUFFIX = "checkpoints", ".safetensors"
NAME = re.compile(r"round-(\d{6,})-([0-9a-f]{64})\.safetensors")
"""A checkpoint's file name: the round, and the SHA-256 of the file. Other files in the folder are left alone."""
KEEP = 2
"""Default number of checkpoints that stay in a run's folder: the latest ones."""
SHARE = 0.02
"""The share of a run's time that checkpoints may take; where one takes more of a round, some rounds have none."""


def save(folder: Path, checkpoint: Checkpoint, keep: int = KEEP) -> Path:
    """Write into ``folder/checkpoints`` beside the others, then drop all but the last ``keep`` (0: none).

    Raises OSError (a full disk), and what pickle raises for an attribute of the strategy that it cannot hold.
    """
    data = checkpoint_form.to_bytes(checkpoint)
    if isinstance(checkpoint.states, StoredStates):  # the states that it names are on the disk before it is
        checkpoint.states.sync()
    where = folder / FOLDER
    where.mkdir(exist_ok=True)
    path = where / f"round-{checkpoint.round:06d}-{hashlib.sha256(data).hexdigest()}{SUFFIX}"
    for left in where.glob(".round-*"):  # of a process that was killed while it wrote; no other one has the run's lock
        left.unlink(missing_ok=True)
    temporary = where / f".round-{checkpoint.round:06d}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in listed(folder):
        if other != path and round_of(other) == checkpoint.round:
            other.unlink(missing_ok=True)
    for old in listed(folder)[:-keep] if keep else ():
        old.unlink(missing_ok=True)
    return path


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest round first. Files with other names are no checkpoints."""
    found = [path for path in (folder / FOLDER).glob(f"round-*{SUFFIX}") if NAME.fullmatch(path.name)]
    return sorted((path for path in found if path.is_file()), key=lambda path: (round_of(path), path.name))


def round_of(path: Path) -> int:
    """The round of a checkpoint, by its name."""
    return int(path.name.split("-")[1])


def read(path: Path, trust_pickle: bool = False) -> Checkpoint:
    """A checkpoint.

    Parameters
    ----------
    path : Path
        Its file, which may come from a stranger: no code that it names is run.
    trust_pickle : bool (default: False)
        Whether a pickled part is read even where it is not signed by this user's key. Where it must not be read,
        the checkpoint says so in ``untrusted``.

    Raises
    ------
    Damaged
        Where the bytes do not have the checksum in its name, or are no checkpoint, or where a state that it names is
        not stored as it was.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path}: it cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != path.name.removesuffix(SUFFIX).rpartition("-")[2]:
        raise Damaged(f"{path}: its checksum is another; it was damaged or cut short")
    try:
        found = checkpoint_form.from_bytes(data, trust_pickle, path.parent.parent / STATES)
    except Malformed as error:
        raise Damaged(f"{path}: {error}") from error
    if isinstance(found.states, StoredStates):
        found.states.check()
    return found


def segments_named(folder: Path) -> set[int]:
    """The segments of states that a run's checkpoints name. Raises OSError where one cannot be read.

    A checkpoint whose header is damaged names none: it cannot be continued from.
    """
    named: set[int] = set()
    for path in listed(folder):
        if path not in _named:
            with path.open("rb") as file:
                _named[path] = checkpoint_form.segments_in(file)
        named |= _named[path]
    return named


_named: dict[Path, set[int]] = {}
"""The segments that a checkpoint names; its name tells its content."""


def latest(
    folder: Path, server_round: int | None = None, trust_pickle: bool = False
) -> tuple[Checkpoint | None, list[str]]:
    """(the last undamaged checkpoint, or that of ``server_round``, or None; why later ones are damaged)."""
    wrong: list[str] = []
    for path in reversed([p for p in listed(folder) if server_round is None or round_of(p) == server_round]):
        try:
            return read(path, trust_pickle), wrong
        except Damaged as error:
            wrong.append(str(error))
    return None, wrong


class Checkpoints:
    """When a run writes its checkpoints, and where.

    Parameters
    ----------
    folder : Path
        The run's folder.
    every : int (default: 0)
        Rounds between checkpoints; 0: each round, or as many as keep their time below SHARE of the run's.
    keep : int (default: KEEP)
        How many stay; 0: all.
    facts : Mapping (default: {})
        Plain values to keep in each.
    """

    def __init__(self, folder: Path, every: int = 0, keep: int = KEEP, facts: Mapping[str, Any] | None = None) -> None:
        self.folder, self.every, self.keep, self.facts = folder, every, keep, dict(facts or {})
        self.refused = ""
        """Why no checkpoint of this run can be written: its strategy cannot be pickled. Empty where it can be."""
        self._next, self._started = 0, time.perf_counter()

    def due(self, server_round: int) -> bool:
        """Whether the round that has just ended gets one."""
        return not self.refused and (server_round >= self._next if self.every == 0 else server_round % self.every == 0)

    def save(self, checkpoint: Checkpoint, round_seconds: float) -> None:
        """Write a checkpoint, and decide when the next is due. Raises OSError (a full disk)."""
        start = time.perf_counter()
        facts = {**self.facts, "seconds": self.facts.get("seconds", 0.0) + start - self._started}
        try:
            save(self.folder, replace(checkpoint, facts=facts), self.keep)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            self.refused = f"{type(error).__name__}: {error}"
        taken = time.perf_counter() - start
        self._next = checkpoint.round + max(1, math.ceil(taken / max(SHARE * round_seconds, 1e-9)))
