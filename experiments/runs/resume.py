"""``--resume RUN`` and ``--fork RUN@N``: a run goes on from its last checkpoint, or a new one begins at another's. No paper.

A resumed run is the run that was never interrupted: same model, same lines of the log but for times.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.config.recipe_files import make
from experiments.config.schema import Config
from experiments.runs import stop
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG, SUMMARY
from fl_sim.rounds import checkpoint
from fl_sim.rounds.checkpoint import Checkpoint
from strategies.base.strategy import Strategy

FREE = ("rounds", "out", "time_limit", "checkpoint_every", "checkpoint_keep", "schedule_rounds")
"""Settings that a run may go on with changed: they change no bit of what is done, or are checked apart."""


@dataclass(frozen=True)
class GoingOn:
    """A run folder, and where its run goes on: behind ``begin``, or from the start where there is none."""

    folder: Path
    begin: Checkpoint | None
    finished: Mapping[str, Any] | None = None
    """The stored summary, where nothing is left to do."""


def going_on(folder: Path, config: Config) -> GoingOn:
    """Where the run in ``folder`` goes on with ``config``, its own but for what was said beside ``--resume``. Raises ConfigError."""
    stored = make(str(folder / CONFIG))
    begin, wrong = checkpoint.latest(folder)
    for line in wrong:
        print(f"warning: {line}; the checkpoint before it is used", file=sys.stderr)
    before = (
        stored.to_dict() if begin is None else {**begin.facts["config"], "chunk": stored.chunk}
    )  # memory may have made it smaller
    check_unchanged(folder, before, config)
    done = summary_of(folder)
    if done and begin is not None and is_done(done, begin, config):
        return GoingOn(folder, begin, done)
    if begin is not None and begin.round > config.rounds:
        raise ConfigError(f"rounds = {config.rounds}: {folder} has done {begin.round}; give at least as many")
    return GoingOn(folder, begin)


def check_unchanged(folder: Path, before: Mapping[str, Any], config: Config) -> None:
    """Raise ConfigError that names the settings in which ``config`` differs from that of the run, and those that forbid more rounds."""
    old, new = flat(before), flat(config.to_dict())
    changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and not free(k)]
    if changed:
        told = ", ".join(f"{k} = {new.get(k)!r} (it began with {old.get(k)!r})" for k in changed)
        raise ConfigError(
            f"resume = {str(folder)!r}: {told}: a run goes on as it began; leave that out, or begin a new one with --fork"
        )
    if config.rounds != old["rounds"] or config.schedule_rounds != old.get("schedule_rounds", 0):
        scheduled = scheduled_by(config)
        same = (config.schedule_rounds or config.rounds) == (old.get("schedule_rounds", 0) or old["rounds"])
        if scheduled and not same:
            why = f"{scheduled} depends on the number of rounds, which was {old['rounds']}"
            raise ConfigError(
                f"rounds = {config.rounds}: {why}; only a run with schedule_rounds set can be made longer"
            )


def free(key: str) -> bool:
    """Whether a setting may change when a run goes on."""
    return key in FREE or (key.startswith("ray.") and key != "ray.engine")


def scheduled_by(config: Config) -> str:
    """The setting by which a round depends on the number of rounds; empty where none does."""
    if config.local.lr_schedule != "constant":
        return "local.lr_schedule"
    thing = config.strategy.thing
    made = thing if config.strategy.made else thing(**config.strategy.params) if issubclass(thing, Strategy) else None
    return made.scheduled if isinstance(made, Strategy) else ""


def is_done(done: Mapping[str, Any], begin: Checkpoint, config: Config) -> bool:
    """Whether the run did all that it was asked."""
    asked = str(done.get("stopped") or "").startswith(stop.FINAL_REASONS)
    return done["rounds"] == begin.round and (asked or (done["status"] == "completed" and begin.round >= config.rounds))


def summary_of(folder: Path) -> dict[str, Any] | None:
    """The stored summary, if there is one."""
    path = folder / SUMMARY
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def forked(config: Config) -> Checkpoint | None:
    """Where a run with ``fork`` begins: the other's model there; its strategy's and clients' state where the strategy is the same.

    Raises ConfigError where there is no such checkpoint, or where its model is another.
    """
    if not config.fork:
        return None
    name, _, text = config.fork.partition("@")
    folder, number = Path(name), int(text) if text.isdigit() else None
    if text and number is None:
        raise ConfigError(f"fork = {config.fork!r}: {text!r} is no round; it must be RUN@N or RUN")
    have = [checkpoint.round_of(path) for path in checkpoint.listed(folder)]
    begin, wrong = checkpoint.latest(folder, number)
    if begin is None:
        there = f"it has checkpoints of rounds {', '.join(map(str, have))}" if have else "it has no checkpoint"
        more = f" ({wrong[0]})" if wrong else "; a run with --checkpoint_keep 0 keeps all"
        raise ConfigError(f"fork = {config.fork!r}: {there}{more}")
    if begin.round >= config.rounds:
        raise ConfigError(f"rounds = {config.rounds}: the fork begins at round {begin.round}; give more")
    other = begin.facts["config"]["strategy"]
    same = other == {"name": config.strategy.name, **config.strategy.params}
    kept = begin if same else replace(begin, strategy={}, states={})
    return replace(kept, positions={}, facts={})


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return found
