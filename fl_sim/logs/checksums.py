"""``checksums.json``: the CRC-32 of each text file of a run that has ended, by which a reader sees damage.

It is written after ``summary.json`` and deleted before anything else is written, so that it is there exactly while the
folder does not change. ``model.safetensors`` and checkpoints have digests of their own.
"""

import json
import zlib
from pathlib import Path

from fl_sim.logs.columns import CONFIG, NAMES, SUMMARY
from fl_sim.logs.kept.partition_file import PARTITION

CHECKSUMS = "checksums.json"
"""File with the checksums, by name of file."""
FILES = (CONFIG, NAMES, PARTITION, SUMMARY, "rounds.jsonl", "clients.jsonl", "events.jsonl")
"""The files that have one, where they exist."""


def text(folder: Path) -> str:
    """The content of ``checksums.json`` for a folder as it is now."""
    return json.dumps({name: _of(folder / name) for name in FILES if (folder / name).is_file()}, indent=2) + "\n"


def changed(folder: Path) -> list[str]:
    """The files that are not those that the run wrote, and those that are missing; none where there are no checksums.

    Raises ValueError for checksums that cannot be read.
    """
    try:
        before = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:  # the run goes on, was killed, or is of an older version
        return []
    try:
        known = dict(json.loads(before))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / CHECKSUMS}: is damaged ({error}); delete it to read the folder unchecked"
        ) from error
    found = [name for name, checksum in known.items() if name not in FILES or _of(folder / name) != checksum]
    try:  # a run that is resumed at this moment deletes the checksums before it writes
        return found if not found or (folder / CHECKSUMS).read_bytes() == before else []
    except FileNotFoundError:
        return []


def _of(file: Path) -> int | None:
    checksum = 0
    try:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
    except OSError:
        return None
    return checksum
