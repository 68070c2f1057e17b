"""``sweep(...)``: a sweep from Python."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.recipe_files import make_each
from experiments.config.schema import Config
from experiments.config.values import seeds
from experiments.runs.data import take_task
from experiments.sweep.axis_values import Point, axes_from
from experiments.sweep.search import Kind
from experiments.sweep.sweep_plan import Plan
from experiments.sweep.sweep_runs import Sweep, run_sweep
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError

__all__ = ["Sweep", "sweep"]


def sweep(
    vary: Mapping[str, object],
    *,
    out: str | Path,
    seed: int | Sequence[int] = 0,
    recipe: str | None = None,
    trials: int = 0,
    search: Kind = "tpe",
    search_seed: int = 0,
    parallel: int = 1,
    batch: bool = True,
    prune: bool = False,
    choose_by: str = "",
    quiet: bool = True,
    **settings: Any,
) -> Sweep:
    """Runs at every combination of values, or at those that a search tries, each with all seeds.

    ``sweep({"strategy.mu": [0, 0.01, 0.1]}, strategy="fedprox", validation=0.1, seed=range(5), out="runs/mu")``. The
    same call goes on with a sweep that was interrupted or killed; runs that are over are not made again.

    Parameters
    ----------
    vary : Mapping
        By dotted key of any setting, a list of values; or text as on the command line: ``"0;0.01;0.1"`` (text values),
        and of a search the ranges ``"1e-3..1e-1"``, ``"log:1e-3..1e-1"`` and ``"int:1..20"``.
    out : str or Path
        The sweep's own folder: each trial is a folder in it, and ``table.csv``, ``table.txt`` and ``sweep.json`` say
        what was found.
    seed : int or sequence of int
        Each trial makes one run with each.
    recipe : str, optional
        A recipe; ``settings`` and ``vary`` override it.
    trials : int
        Trials of a search by Optuna (``pip install 'fl-sim[sweep]'``); 0: the grid.
    search : str
        ``tpe`` or ``random``; ``search_seed`` keys what it tries. It reads the validation samples alone.
    parallel : int
        Processes that make runs at the same time.
    batch : bool
        Whether runs that differ in plain numbers alone train as one batch (``--vmap_over``), each with the numbers that
        it would have alone, up to rounding.
    prune : bool
        Whether a search ends runs whose validation falls behind the median of earlier trials.
    choose_by : str
        The column of the validation samples that chooses; default: ``val_accuracy``, else ``val_loss``.
    settings
        As of ``experiments.run.run``; names, or objects (not with ``parallel``).

    Raises
    ------
    ConfigError
        (A ValueError) before any work, for what is wrong. A run that fails is shown as failed, and no error.
    """
    axes, configs_of = axes_from(vary), maker(vary, recipe, settings, seeds(seed))
    plan = Plan(axes, configs_of, Path(out), trials, search, search_seed, parallel, batch, prune, choose_by)
    return run_sweep(plan, (lambda line: None) if quiet else print)


def maker(
    vary: Mapping[str, object], recipe: str | None, settings: dict[str, Any], numbers: Sequence[int]
) -> Callable[[Point], list[Config]]:
    """From a point to its configs, one a seed. Raises ConfigError where a setting that varies has a value too."""
    take_task(settings)
    given = {key.removesuffix(".name") for key in flatten(settings)}
    for one in axes_from(vary):
        if one.key in given:
            raise ConfigError(f"vary = {one.key!r}: has a value of its own, which these replace; leave one out")
    return lambda point: make_each(recipe, **settings, **point, seed=list(numbers))
