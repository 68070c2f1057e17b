"""One run of a trial in a folder of its own: what the folder holds already, and how it is made or goes on.

A run that has ended is not made again. One that was killed or interrupted goes on from its last checkpoint. So whatever
moment a sweep is killed at, the same command goes on with it.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from experiments.analysis.frames import HOW, NOT_COMPARED
from experiments.config.recipe_files import make
from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.resume import ready, resume
from experiments.runs.setup import build
from fl_sim import Callback
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG, SUMMARY
from fl_sim.logs.toml import read_toml

FAILURE = "failure.json"
"""File that says why a run could not begin, or how its process died."""
PRUNED = "pruned"
"""Beginning of the reason why a search ended a run early."""


@dataclass(frozen=True)
class Made:
    """What a trial's folder says of its run."""

    state: Literal["missing", "begun", "completed", "stopped", "pruned", "failed"]
    """``begun``: it was killed or interrupted, and goes on. ``stopped``: by a rule of its config."""
    folder: Path | None = None
    """The run's folder."""
    error: str = ""
    """Why it failed."""

    @property
    def is_over(self) -> bool:
        """Whether the run is not made again."""
        return self.state not in ("missing", "begun")


def made(place: Path) -> Made:
    """What ``place``, the folder of one run of a trial, holds.

    That is its newest run that has ended, else why it could not begin or go on, else one that began.
    """
    begun = None
    for file in sorted(place.glob(f"*/{CONFIG}"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        summary = summary_of(file.parent)
        if summary is None or str(summary.get("stopped") or "").startswith("interrupted"):
            begun = begun or file.parent
        elif summary["status"] == "failed":
            return Made("failed", file.parent, str(summary.get("error")))
        else:
            pruned = str(summary.get("stopped") or "").startswith(PRUNED)
            return Made("pruned" if pruned else summary["status"], file.parent)
    if (place / FAILURE).is_file():
        return Made("failed", begun, str(json.loads((place / FAILURE).read_text(encoding="utf-8"))["error"]))
    return Made("missing") if begun is None else Made("begun", begun)


def summary_of(folder: Path) -> dict[str, Any] | None:
    """The summary of a run; None where it has none yet."""
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return found
    except (FileNotFoundError, ValueError):
        return None


def check_same(folder: Path, config: Config) -> None:
    """Raise ConfigError where the run in ``folder`` was made with other settings than ``config``."""
    try:
        have = flatten(read_toml(folder / CONFIG))
    except ValueError:  # cut off by a kill: the run is made again
        return
    want, skipped = flatten(config.to_dict()), NOT_COMPARED - {"seed"}
    for key in sorted({*have, *want}):
        if key in skipped or key.startswith(HOW) or key not in have:
            continue
        if have[key] != want.get(key):
            cure = "name another folder with --out, or delete this one"
            raise ConfigError(f"out: {folder} was made with {key} = {have[key]!r}, not {want.get(key)!r}; {cure}")


def make_run(config: Config, place: Path, callbacks: Sequence[Callback] = ()) -> Made:
    """Make the run of ``config`` in ``place``, or go on with the one that began there; returns what is there then.

    A run that fails is a result. Raises KeyboardInterrupt where it is interrupted.
    """
    before = made(place)
    if before.is_over:
        return before
    config = replace(config, out=str(place))
    error: BaseException | None = None
    try:
        error = go_on(before.folder, config, callbacks) if before.folder is not None else begin(config, callbacks)
    except (ValueError, OSError) as caught:  # of settings that only the data show to be wrong
        error = caught
        failed(place, caught)
    if isinstance(error, KeyboardInterrupt):
        raise error
    return made(place)


def begin(config: Config, callbacks: Sequence[Callback] = ()) -> BaseException | None:
    """Run a config in a new folder; returns its error."""
    return execute(ready(config), True, callbacks)[1]


def go_on(folder: Path, config: Config, callbacks: Sequence[Callback] = ()) -> BaseException | None:
    """Go on with the run in ``folder``, or begin again beside it where that cannot be; returns the run's error."""
    try:
        stored = make(str(folder / CONFIG))
        resumed = resume(folder, stored)
    except ValueError:  # it was killed before its config was complete, or has objects from Python
        return begin(config, callbacks)
    if resumed.finished is not None:
        return None
    return execute(build(stored), True, callbacks, resumed)[1]


def failed(place: Path, error: BaseException) -> None:
    """Note why a run could not begin or go on."""
    place.mkdir(parents=True, exist_ok=True)
    temporary = place / f".{FAILURE}.{os.getpid()}"
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    temporary.write_text(json.dumps({"error": f"{kind}{error}"}), encoding="utf-8")
    os.replace(temporary, place / FAILURE)
