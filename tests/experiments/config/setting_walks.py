"""What the walks over all settings share: the tiny world's settings, what a run wrote, and what was refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.resume import ready
from experiments.runs.setup import Setup
from fl_sim.errors import ConfigError
from fl_sim.logs.round_columns import repeatable
from tests.experiments.config import tiny_world

WORLD = tiny_world.__name__
REFUSED = "refused"
"""Stands for a setting that the tiny world refuses by name."""
Entry = tuple[Any, ...]
"""Another value, settings that both runs have, and REFUSED or how the change shows where no log does."""


def settings(key: str, entry: Entry, changed: bool, out: Path, **more: Any) -> dict[str, Any]:
    """The settings of a run of the tiny world, with or without the change of one."""
    value, base = (*entry, {})[:2]
    world = {"task": f"{WORLD}:tiny", "partition": "natural", "model": f"{WORLD}:linear", "rounds": 1, "engine": "vmap"}
    own = {**world, "out": str(out), **base, **more}
    return {**own, key.removesuffix(".name"): str(out / value) if key == "out" else value} if changed else own


def wrote(folder: Path) -> dict[str, Any]:
    """All that a run wrote but for times, paths and its config."""
    files = [folder / f"{name}.jsonl" for name in ("rounds", "clients", "events")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines if '"event":"resumed"' not in line]
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "rows": [repeatable(row) for row in rows],
        "summary": {k: v for k, v in summary.items() if k not in ("seconds", "run_dir", "time")},
        "checkpoints": sorted(path.name[:12] for path in folder.glob("checkpoints/*")),
        "elsewhere": folder.parent.name == "elsewhere",
    }


def folder_of(given: Mapping[str, Any]) -> Path:
    """The folder of a run with these settings, which may fail. Raises ConfigError for a setting that is refused."""
    summary, _ = execute(ready(make(**given)), quiet=True)
    return Path(summary["run_dir"])


def seen(how: str, setup: Setup) -> str:
    """What shows a setting that changes neither numbers nor logs; empty for one that does."""
    if how == "threads":
        return str(setup.config.threads)
    if how == "silo":
        return str(vars(setup.learner.silo).get("silo"))
    return f"{type(setup.executor)} {vars(setup.executor).get('chunk')}" if how == "executor" else ""


def or_refused(key: str, run: Callable[[], object]) -> object:
    """What ``run`` gives; REFUSED where it refuses the setting ``key`` by name. Raises other errors of settings."""
    try:
        return run()
    except ConfigError as error:
        if f"{key} = " not in str(error):
            raise
        return REFUSED
