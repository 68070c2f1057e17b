"""The trials of a sweep: the points of a grid, or what a search asks for, group by group."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from types import NoneType

from experiments.config.choices import PACKAGES
from experiments.sweep.axis_values import Point, grid
from experiments.sweep.search import Result, Search
from experiments.sweep.sweep_plan import Plan, corners
from experiments.sweep.trial_runs import failed
from experiments.sweep.trial_table import Trial, result_of
from fl_sim.errors import ConfigError


def gridded(plan: Plan) -> list[Trial]:
    """The trials of a grid, each named by its values."""
    trials = [Trial(name_of(point), point, plan.configs_of(point)) for point in grid(plan.axes)]
    seen: dict[str, Trial] = {}
    for trial in trials:
        objects = [id(getattr(config, kind).component) for config in trial.configs for kind in PACKAGES]
        same = seen.setdefault(repr([objects, [config.to_dict() for config in trial.configs]]), trial)
        if same is not trial:
            raise ConfigError(
                f"vary: {same.point} and {trial.point} are the same runs, and would count as two trials; leave one out"
            )
    return trials


def name_of(point: Point) -> str:
    """The folder of a grid's trial: its values, readable, and a hash that tells any two apart."""
    text = ",".join(f"{key.removesuffix('.name')}={shown(value)}" for key, value in point.items())
    exact = hashlib.sha256(json.dumps(point, sort_keys=True, default=str).encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.=,+-]+", "-", text)[:90]
    return f"{readable}-{exact}"


def shown(value: object) -> object:
    """A value of a setting as a reader names it: an object by its class (and fields), a function by its name."""
    if isinstance(value, (str, int, float, list, tuple, dict, NoneType)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return value  # its text has class and fields
    return getattr(value, "__name__", type(value).__name__)


def searched(plan: Plan, known: Sequence[Trial]) -> Iterable[list[Trial]]:
    """The trials of a search, in groups that are asked for together: a group depends on the results of those before.

    ``known``: the trials so far, which the caller extends by each group and makes.
    """
    search = search_of(plan)
    results: list[Result] = []
    while len(known) < plan.trials:
        results += [result_of(trial, plan.folder, plan.choose_by) for trial in known[len(results) :]]
        left = plan.trials - len(known)
        # random trials read no results; those of TPE read all that were there when their group was asked for
        count = left if plan.kind == "random" and not plan.prune else min(left, plan.parallel)
        points = search.ask(count, results)
        yield [trial_of(plan, len(known) + place, point) for place, point in enumerate(points)]


def search_of(plan: Plan) -> Search:
    """What asks for the trials of a search. Raises ConfigError where the folder holds another one."""
    seeds = [config.seed for config in plan.configs_of(corners(plan.axes)[0])]
    how = {"choose_by": plan.choose_by, "prune": plan.prune, "seeds": seeds}
    return Search(plan.axes, plan.kind, plan.search_seed, plan.folder, **how)


def trial_of(plan: Plan, number: int, point: Point) -> Trial:
    """A trial of a search; one whose values contradict each other has failed."""
    name = f"trial-{number:04d}"
    try:
        return Trial(name, point, plan.configs_of(point))
    except ConfigError as error:
        failed(plan.folder / name, error)
        return Trial(name, point, ())
