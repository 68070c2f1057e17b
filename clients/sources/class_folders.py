"""Pictures in one folder per class: which folders are classes, which files are pictures, and what is left out.

Hidden are files and folders that a user does not see: names that begin with a dot (``.ipynb_checkpoints``,
``.DS_Store``, ``._x.png``), and those that archives, file servers and Windows add (``HIDDEN``). They are skipped in
silence. All else that is left out is told.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clients.sources.pictures import PICTURES

HIDDEN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
"""Names, besides those that begin with a dot, of files and folders that are skipped."""


@dataclass(frozen=True)
class Listing:
    """The pictures of one half of a data set."""

    entries: tuple[tuple[Path, str], ...]
    """(file, class) of each picture, sorted by path."""
    notes: tuple[str, ...] = ()
    """What was left out, as sentences."""


def class_folders(root: Path) -> list[Path]:
    """The folders in ``root`` that are not hidden, sorted by name."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden([entry.name]))


def pictures(root: Path, pattern: str = "**/*") -> list[Path]:
    """The picture files below ``root`` that are not hidden, sorted by path."""
    return [file for file in _seen(root, pattern) if _is_picture(file)]


def listed(root: Path) -> Listing:
    """The pictures of ``root/<class>/``, in folders of any depth; empty if there is no folder ``root``."""
    if not root.is_dir():
        return Listing(())
    files = _seen(root, "*/**/*")
    entries = tuple((file, file.relative_to(root).parts[0]) for file in files if _is_picture(file))
    notes = []
    used = {label for _, label in entries}
    if empty := [folder.name for folder in class_folders(root) if folder.name not in used]:
        notes.append(f"{root}: {_some(empty)}: no pictures, so that this is no class")
    if others := [file for file in files if not _is_picture(file)]:
        kinds = Counter(file.suffix.lower() or "no ending" for file in others).most_common()
        counts = _some([f"{ending} {count}" for ending, count in kinds])
        what = f"{len(others)} files in class folders are left out for their endings ({counts})"
        notes.append(f"{root}: {what}; the first is {others[0].relative_to(root)}; pictures end with {_endings()}")
    if broken := [
        file for file in root.glob("*/**/*") if _is_picture(file) and file.is_symlink() and not file.exists()
    ]:
        what = f"{len(broken)} links to pictures lead nowhere and are left out"
        notes.append(f"{root}: {what}; the first is {min(broken).relative_to(root)}")
    if loose := [file for file in _seen(root, "*") if _is_picture(file)]:
        notes.append(f"{root}: {len(loose)} pictures in no class folder are left out; the first is {loose[0].name}")
    return Listing(entries, tuple(notes))


def _seen(root: Path, pattern: str) -> list[Path]:
    found = (file for file in root.glob(pattern) if not _is_hidden(file.relative_to(root).parts))
    return sorted(file for file in found if file.is_file())


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part in HIDDEN for part in parts)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES


def _endings() -> str:
    return ", ".join(PICTURES)


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
