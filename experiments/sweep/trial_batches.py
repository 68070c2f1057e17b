"""Which runs of a sweep train together as one batch, as with ``--vmap_over``: those that differ in numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.config.asynchronous.asynchronous_settings import is_asynchronous
from experiments.config.axes import may_differ
from experiments.config.choices import PACKAGES
from experiments.config.plan_checks import values
from experiments.config.schema import Config
from experiments.runs.lockstep import run_together
from experiments.sweep.trial_runs import Made, made, make_run

MOST = 32
"""Runs of one batch: each keeps a model and a log of its own."""


@dataclass(frozen=True)
class Job:
    """One run that is to be made."""

    config: Config
    place: Path
    """The folder of this run alone; its run folder will be in it."""


def batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups that train as one batch, of at most ``MOST``, in the order of their first members.

    Jobs of a group differ in the seed, and in settings in which runs of ``--vmap_over`` may differ. A run that began
    goes on alone.
    """
    groups: dict[object, list[Job]] = {}
    for number, job in enumerate(jobs):
        config = job.config
        alone = config.engine not in ("auto", "vmap") or config.client_timeout or config.fork
        alone = alone or is_asynchronous(config.strategy)  # its runs wait for other clients each
        key = number if alone or made(job.place).state != "missing" else _kind(config)
        groups.setdefault(key, []).append(job)
    return [group[start : start + MOST] for group in groups.values() for start in range(0, len(group), MOST)]


def _kind(config: Config) -> str:
    """A text that is equal for configs that can be one batch."""
    free = {"seed", "out", *may_differ(config)}
    same = {key: value for key, value in values(config).items() if key not in free}
    names = {kind: (getattr(config, kind).name, id(getattr(config, kind).component)) for kind in PACKAGES}
    clips = bool(config.local.clip_norm)  # 0 means no clipping: another computation
    return repr((sorted((key, repr(value)) for key, value in same.items()), names, clips))


def make_batch(jobs: Sequence[Job]) -> list[Made]:
    """Make the runs of a group; returns what each folder then holds. Raises KeyboardInterrupt where interrupted."""
    if len(jobs) == 1:
        return [make_run(jobs[0].config, jobs[0].place)]
    configs = [replace(job.config, out=str(job.place)) for job in jobs]
    keys = [key for key in may_differ(configs[0]) if len({repr(values(config)[key]) for config in configs}) > 1]
    axes = ";".join(f"{key}={','.join(str(values(config)[key]) for config in configs)}" for key in keys)
    axes = axes or f"seed={','.join(str(config.seed) for config in configs)}"
    try:
        errors = [error for _, error in run_together(configs, axes, True)]
    except (ValueError, OSError):  # of settings that only the data show to be wrong: one by one tells of which runs
        return [make_run(job.config, job.place) for job in jobs]
    for interrupted in (error for error in errors if isinstance(error, KeyboardInterrupt)):
        raise interrupted
    return [made(job.place) for job in jobs]
