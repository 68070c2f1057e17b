"""The runs that a page shows, read so that a run in progress, a broken or an old one does not hide the others."""

import json
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_sim.logs.columns import CONFIG
from fl_sim.logs.many_runs import differing
from fl_sim.logs.reader import RunLog, check, read_back


@dataclass(frozen=True)
class Found:
    """A run that could be read."""

    name: str
    """Its folder's name, or as much of the path as tells it from the others."""
    log: RunLog
    label: str = ""
    """Its strategy and the settings in which runs differ, without the seed."""


@dataclass(frozen=True)
class Runs:
    """The runs of a page."""

    found: list[Found]
    """Those that could be read, by name."""
    notes: list[str]
    """What a reader of the page must know: runs that could not be read, and why; files that were changed."""


def folders(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders that ``paths`` name: runs, or folders of runs at any depth (a sweep's, say).

    Raises ValueError for a path that is no folder, or holds no run.
    """
    chosen: dict[Path, None] = {}
    for path in paths:
        root = Path(path)
        if not root.is_dir():
            why = "is a file" if root.exists() else "there is no such folder"
            raise ValueError(f"{str(path)!r}: {why}; name a run's folder, or a folder of runs")
        inside = [root] if (root / CONFIG).is_file() else sorted(file.parent for file in root.rglob(CONFIG))
        if not inside:
            why = f"holds no run (no {CONFIG} in it or below)"
            raise ValueError(f"{str(path)!r}: {why}; name a run's folder, or a folder of runs")
        chosen |= dict.fromkeys(folder.resolve() for folder in inside)
    return list(chosen)


def read_runs(paths: Sequence[Path], checked: bool = True) -> Runs:
    """Read runs; what is wrong with one is a note.

    Parameters
    ----------
    paths : sequence of Path
        Run folders, as from ``folders``.
    checked : bool
        Whether checksums are compared, for which all files of a run are read.
    """
    notes: list[str] = []
    logs = []
    for name, folder in zip(_names(paths), paths, strict=True):
        try:
            logs.append((name, read_back(folder, checked=False)))
            notes += _changed(folder) if checked else []
        except (ValueError, OSError) as error:
            notes.append(f"{name}: cannot be read, and is left out: {error}")
    labels = _labels(dict(logs))
    return Runs([Found(name, log, labels[name]) for name, log in logs], notes)


def _changed(folder: Path) -> list[str]:
    """What checksums say of a run's files."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            check(folder)
        except (ValueError, OSError) as error:
            return [str(error)]
    return [str(one.message) for one in warned]


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each folder: the last parts of its path, as many as tell it from the others of that name."""
    names = [path.name for path in paths]
    for depth in range(2, 5):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else "/".join(path.parts[-depth:])
            for name, path in zip(names, paths, strict=True)
        ]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def _labels(logs: Mapping[str, RunLog]) -> dict[str, str]:
    """A label for each run, such as ``fedprox, mu=0.01``; without the seed."""
    differ = differing({name: log.config for name, log in logs.items()})
    labels = {}
    for name, log in logs.items():
        own = {key: value for key, value in differ[name].items() if key not in ("seed", "strategy.name")}
        more = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in own.items() if value is not None]
        labels[name] = ", ".join([str(_strategy(log)), *more])
    return labels


def _strategy(log: RunLog) -> object:
    table = log.config.get("strategy")
    name = table.get("name") if isinstance(table, Mapping) else None
    return log.summary.get("strategy") or name or log.summary.get("app") or log.config.get("app") or "run"


def state(log: RunLog) -> str:
    """How a run ended, or what is known of one without a summary."""
    if log.summary:
        return str(log.summary.get("status", "ended"))
    try:
        ago = time.time() - max(file.stat().st_mtime for file in log.path.glob("*.jsonl"))
    except (OSError, ValueError):
        return "no summary: goes on, or was killed"
    return "running" if ago < 60 else "no summary: goes on, or was killed"


def text(value: object, most: int = 300) -> str:
    """A value as short text: JSON for lists and tables."""
    words = value if isinstance(value, str) else json.dumps(value, default=str)
    return words if len(words) <= most else f"{words[: most - 4]} ..."
