"""What a sweep is to do, and what is refused of it before any work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.analysis.frames import FALLS, RISES
from experiments.config.schema import Config
from experiments.runs.resume import ready
from experiments.sweep.axis_values import Axis, Point, grid
from experiments.sweep.search import Kind, has_direction
from experiments.sweep.trial_batches import Job
from experiments.sweep.trial_table import DEFAULT_COLUMNS, changes_validation
from experiments.sweep.trial_workers import check_sendable
from fl_sim.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do."""

    axes: Sequence[Axis]
    configs_of: Callable[[Point], Sequence[Config]]
    """The configs of a point, one for each seed. Raises ConfigError."""
    folder: Path
    trials: int = 0
    """Trials of a search; 0: the grid of all values."""
    kind: Kind = "tpe"
    search_seed: int = 0
    parallel: int = 1
    """Processes that make runs at the same time."""
    batch: bool = True
    """Whether runs that can train as one batch do."""
    prune: bool = False
    """Whether a search ends runs early whose validation falls behind."""
    choose_by: str = ""
    """The column of the validation samples that chooses; empty: ``val_accuracy``, else ``val_loss``."""


def check(plan: Plan) -> None:
    """Raise ConfigError for a plan that cannot be followed, or whose folder holds a sweep of other settings."""
    if plan.parallel < 1 or plan.trials < 0:
        raise ConfigError(f"parallel = {plan.parallel}, trials = {plan.trials}: must be at least 1, and at least 0")
    if plan.choose_by and not plan.choose_by.startswith("val_"):
        why = "choices read the validation samples alone, whose columns begin with val_"
        raise ConfigError(f"choose_by = {plan.choose_by!r}: {why}; give one of them, such as {DEFAULT_COLUMNS[0]}")
    if plan.choose_by and not has_direction(plan.choose_by):
        known = f"higher is better of {', '.join(RISES)}, lower of {', '.join(FALLS)}"
        raise ConfigError(
            f"choose_by = {plan.choose_by!r}: its name does not tell whether higher is better ({known})"
            f"; give another column, such as {DEFAULT_COLUMNS[0]}"
        )
    if not plan.trials and plan.prune:
        raise ConfigError("prune = true: a search alone ends runs early; give --trials N too, or leave it out")
    if plan.prune and plan.parallel > 1:
        raise ConfigError(f"prune = true, parallel = {plan.parallel}: each run is compared with those before; give one")
    points = grid(plan.axes) if not plan.trials else corners(plan.axes)
    configs = [config for point in points for config in plan.configs_of(point)]
    names = sorted({config.strategy.name for config in plan.configs_of(points[0])})
    if len(names) > 1:
        what = f"strategy.name = {', '.join(names)}: several strategies are an axis of their own"
        raise ConfigError(f"{what}; give --vary 'strategy={';'.join(names)}'")
    for config in configs:
        if plan.trials and not config.validation:
            why = "a search chooses by the central validation samples, and validation = 0 keeps none"
            raise ConfigError(f"trials = {plan.trials}: {why}; give a share (--validation 0.1)")
    if plan.choose_by and not any(config.validation for config in configs):
        raise ConfigError(f"choose_by = {plan.choose_by!r}: validation = 0 keeps no samples; give --validation 0.1")
    if plan.parallel > 1:
        check_sendable([Job(config, plan.folder) for config in configs])
    moving = [one.key for one in plan.axes if changes_validation(one.key)]
    if plan.trials and moving:
        why = "numbers on different validation samples cannot be compared"
        raise ConfigError(
            f"vary = {moving[0]!r}: {why}, so that a search cannot choose; leave --trials out, or {moving[0]}"
        )
    if not plan.folder.exists() and not plan.trials:
        ready(configs[0])  # what only the data show to be wrong, of the first run at least


def corners(axes: Sequence[Axis]) -> list[Point]:
    """The points at the ends of ranges, and at each value, of one axis at a time."""
    first: Point = {one.key: ends(one)[0] for one in axes}
    return [first, *({**first, one.key: value} for one in axes for value in ends(one)[1:])]


def ends(one: Axis) -> Sequence[object]:
    """The values of an axis, or both ends of its range."""
    return one.values if not one.is_range else [int(x) if one.whole else x for x in (one.low, one.high)]
